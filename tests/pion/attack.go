package main

import (
	"crypto/rand"
	"net"
)

// attack sends n datagrams of each kind that a server must ignore: from a stranger's socket, and some from the viewer's own.
// It gives the number sent per kind.
func attack(tap *Tap, n int) (map[string]int, error) {
	tap.mu.Lock()
	server := tap.server
	checks := append([][]byte(nil), tap.checks...)
	tap.mu.Unlock()
	local, _ := tap.LocalAddr().(*net.UDPAddr)
	stranger, err := net.ListenUDP("udp", &net.UDPAddr{IP: local.IP})
	if err != nil {
		return nil, err
	}
	defer stranger.Close()
	sent := map[string]int{}
	send := func(kind string, from *net.UDPConn, b []byte) error {
		if _, err := from.WriteToUDP(b, server); err != nil {
			return err
		}
		sent[kind]++
		return nil
	}
	for i := range n {
		check := checks[i%len(checks)]
		kinds := []struct {
			name string
			from *net.UDPConn
			data []byte
		}{
			{"garbage", stranger, random(1+i%1400, 0xff)},
			{"garbage_own", tap.UDPConn, random(1+i%1400, 0xff)},
			{"empty", stranger, nil},
			{"replayed", stranger, check},
			// Another transaction than the one that was signed.
			{"spoofed", stranger, flipped(check, 19)},
			// A user name of the same length that nobody has.
			{"unknown_user", stranger, flipped(check, 24)},
			{"cut", stranger, check[:len(check)-1-i%len(check)]},
			{"dtls", stranger, append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, byte(i), 0, 100}, random(100, 0)...)},
			{"dtls_own", tap.UDPConn, append([]byte{22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, byte(i), 0, 100}, random(100, 0)...)},
			{"rtp", stranger, random(200, 0x80)},
			{"rtcp", stranger, append([]byte{0x81, 206, 0, 2}, random(40, 0)...)},
			{"rtcp_own", tap.UDPConn, append([]byte{0x81, 205, 0, 3}, random(40, 0)...)},
		}
		for _, kind := range kinds {
			if err := send(kind.name, kind.from, kind.data); err != nil {
				return sent, err
			}
		}
	}
	return sent, nil
}

// random gives n bytes that begin with first, and for RTP with a payload type that is none of RTCP's.
func random(n int, first byte) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	b[0] = first
	if n > 1 {
		b[1] = 96
	}
	return b
}

func flipped(b []byte, at int) []byte {
	b = append([]byte(nil), b...)
	b[at] ^= 0x01
	return b
}
