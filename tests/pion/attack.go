package main

import (
	"crypto/rand"
	"net"
)

// attack sends n datagrams of each kind that a server must ignore, from an unrelated socket and,
// for some kinds, from the viewer's own socket. It returns the number sent per kind.
func attack(tap *Tap, n int) (map[string]int, error) {
	tap.mu.Lock()
	server := tap.server
	checks := append([][]byte(nil), tap.checks...)
	tap.mu.Unlock()
	local, _ := tap.LocalAddr().(*net.UDPAddr)
	outsider, err := net.ListenUDP("udp", &net.UDPAddr{IP: local.IP})
	if err != nil {
		return nil, err
	}
	defer outsider.Close()
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
			{"garbage", outsider, randomPacket(1+i%1400, 0xff)},
			{"garbage_own", tap.UDPConn, randomPacket(1+i%1400, 0xff)},
			{"empty", outsider, nil},
			{"replayed", outsider, check},
			// The transaction id differs from the signed one.
			{"spoofed", outsider, flipBit(check, 19)},
			// A user name of the same length that does not exist.
			{"unknown_user", outsider, flipBit(check, 24)},
			{"cut", outsider, check[:len(check)-1-i%len(check)]},
			{"dtls", outsider, append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, byte(i), 0, 100}, randomPacket(100, 0)...)},
			{"dtls_own", tap.UDPConn, append([]byte{22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, byte(i), 0, 100}, randomPacket(100, 0)...)},
			{"rtp", outsider, randomPacket(200, 0x80)},
			{"rtcp", outsider, append([]byte{0x81, 206, 0, 2}, randomPacket(40, 0)...)},
			{"rtcp_own", tap.UDPConn, append([]byte{0x81, 205, 0, 3}, randomPacket(40, 0)...)},
		}
		for _, kind := range kinds {
			if err := send(kind.name, kind.from, kind.data); err != nil {
				return sent, err
			}
		}
	}
	return sent, nil
}

// randomPacket returns n bytes. The first is the given one, the second an RTP payload type that
// cannot be taken for RTCP.
func randomPacket(n int, first byte) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	b[0] = first
	if n > 1 {
		b[1] = 96
	}
	return b
}

func flipBit(b []byte, at int) []byte {
	b = append([]byte(nil), b...)
	b[at] ^= 0x01
	return b
}
