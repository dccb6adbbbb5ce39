package main

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// Tap is a UDP socket that counts what passes, loses what it is told to, and keeps what may be replayed. It works below
// decryption: what it loses, the stack above has never seen.
type Tap struct {
	*net.UDPConn
	mu        sync.Mutex
	videoType byte
	dropNth   int
	seen      int
	first     time.Time
	server    *net.UDPAddr
	checks    [][]byte
	muted     bool
	streams   map[byte]*Numbers
}

// Numbers are the sequence numbers of one payload type.
type Numbers struct {
	first, highest int64
	came           map[int64]int
	missing, late  int
	dropped        map[int64]bool
	droppedCount   int
}

// maxChecks is how many STUN requests are kept.
const maxChecks = 16

func newTap(bind string, dropNth int) (*Tap, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(bind)})
	if err != nil {
		return nil, err
	}
	// A key frame at once is more than Debian's default buffer holds.
	_ = conn.SetReadBuffer(1 << 20)
	return &Tap{UDPConn: conn, dropNth: dropNth, streams: map[byte]*Numbers{}}, nil
}

// The embedded methods would bypass the counting.

// ReadFromUDP is not for use.
func (t *Tap) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	n, addr, err := t.ReadFrom(b)
	udp, _ := addr.(*net.UDPAddr)
	return n, udp, err
}

// ReadFrom gives the next datagram that is not lost.
func (t *Tap) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := t.UDPConn.ReadFromUDP(b)
		if err != nil {
			return n, nil, err
		}
		if t.lose(b[:n]) {
			continue
		}
		return n, addr, nil
	}
}

// WriteTo sends, and keeps STUN requests.
func (t *Tap) WriteTo(b []byte, addr net.Addr) (int, error) {
	if len(b) >= 20 && b[0] == 0 && b[1] == 1 {
		t.mu.Lock()
		if len(t.checks) < maxChecks {
			t.checks = append(t.checks, append([]byte(nil), b...))
		}
		t.server, _ = addr.(*net.UDPAddr)
		t.mu.Unlock()
	}
	t.mu.Lock()
	muted := t.muted
	t.mu.Unlock()
	if muted {
		return len(b), nil
	}
	return t.UDPConn.WriteTo(b, addr)
}

// haunt says nothing more but a check that was sent before, again and again, until ctx ends.
func (t *Tap) haunt(ctx context.Context) error {
	t.mu.Lock()
	t.muted = true
	check, server := t.checks[len(t.checks)-1], t.server
	t.mu.Unlock()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := t.UDPConn.WriteTo(check, server); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// lose counts a datagram and says whether it is to be lost. RFC 7983 tells kinds apart, RFC 5761 RTP from RTCP.
func (t *Tap) lose(b []byte) bool {
	if len(b) < 12 || b[0]&0xc0 != 0x80 || (b[1] >= 192 && b[1] <= 223) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first.IsZero() {
		t.first = time.Now()
	}
	payloadType := b[1] & 0x7f
	s := t.streams[payloadType]
	number := int64(binary.BigEndian.Uint16(b[2:]))
	if s == nil {
		s = &Numbers{first: number, highest: number - 1, came: map[int64]int{}, dropped: map[int64]bool{}}
		t.streams[payloadType] = s
	}
	number = s.highest + int64(int16(uint16(number)-uint16(s.highest)))
	inOrder := number > s.highest
	if inOrder {
		s.missing += int(number - s.highest)
		s.highest = number
	}
	if payloadType == t.videoType && t.dropNth > 0 && !s.dropped[number] {
		t.seen++
		if t.seen%t.dropNth == 0 {
			s.dropped[number] = true
			s.droppedCount++
			return true
		}
	}
	if s.came[number] == 0 && number >= s.first {
		s.missing--
		if !inOrder {
			s.late++
		}
	}
	s.came[number]++
	return false
}

// fill copies the counts of a payload type.
func (t *Tap) fill(payloadType byte, r *TrackReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.streams[payloadType]
	if s == nil {
		return
	}
	r.Packets = len(s.came)
	r.Dropped = s.droppedCount
	for _, times := range s.came {
		r.Again += times - 1
	}
	r.Lost = s.missing
}

// progress adds the numbers between the first and the newest that have not come, and those that came after a later one.
func (t *Tap) progress(payloadType byte, report map[string]any) map[string]any {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.streams[payloadType]; s != nil {
		report["missing"], report["late"] = s.missing, s.late
	}
	return report
}

// lastNumbers gives the newest n sequence numbers that came.
func (t *Tap) lastNumbers(payloadType byte, n int) []uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []uint16
	if s := t.streams[payloadType]; s != nil {
		for number := s.highest; number >= s.first && len(out) < n; number-- {
			if s.came[number] > 0 {
				out = append(out, uint16(number))
			}
		}
	}
	return out
}
