package main

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// Tap is a UDP socket that counts RTP packets, drops some of them on request, and keeps
// STUN requests for replay. It works below decryption: the stack above never sees the
// packets that it drops.
type Tap struct {
	*net.UDPConn
	mu           sync.Mutex
	videoType    byte
	dropNth      int
	videoPackets int
	firstPacket  time.Time
	server       *net.UDPAddr
	checks       [][]byte
	muted        bool
	streams      map[byte]*SequenceTracker
}

// SequenceTracker tracks the sequence numbers of one payload type.
type SequenceTracker struct {
	first, highest int64
	received       map[int64]int
	missing, late  int
	dropped        map[int64]bool
	droppedCount   int
}

// maxChecks is the number of STUN requests that are kept.
const maxChecks = 16

func newTap(bind string, dropNth int) (*Tap, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(bind)})
	if err != nil {
		return nil, err
	}
	// A key frame sent in one burst exceeds Debian's default buffer.
	_ = conn.SetReadBuffer(1 << 20)
	return &Tap{UDPConn: conn, dropNth: dropNth, streams: map[byte]*SequenceTracker{}}, nil
}

// These methods replace the embedded ones, which would bypass the counting.

// ReadFromUDP is ReadFrom with the address as a UDP address.
func (t *Tap) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	n, addr, err := t.ReadFrom(b)
	udp, _ := addr.(*net.UDPAddr)
	return n, udp, err
}

// ReadFrom returns the next datagram that is not dropped.
func (t *Tap) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := t.UDPConn.ReadFromUDP(b)
		if err != nil {
			return n, nil, err
		}
		if t.shouldDrop(b[:n]) {
			continue
		}
		return n, addr, nil
	}
}

// WriteTo sends a datagram and keeps STUN requests.
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

// replayCheck mutes the socket and resends an old connectivity check until ctx ends.
func (t *Tap) replayCheck(ctx context.Context) error {
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

// shouldDrop counts a datagram and reports whether to drop it. RFC 7983 separates RTP from DTLS and
// STUN, RFC 5761 separates RTP from RTCP.
func (t *Tap) shouldDrop(b []byte) bool {
	if len(b) < 12 || b[0]&0xc0 != 0x80 || (b[1] >= 192 && b[1] <= 223) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.firstPacket.IsZero() {
		t.firstPacket = time.Now()
	}
	payloadType := b[1] & 0x7f
	s := t.streams[payloadType]
	number := int64(binary.BigEndian.Uint16(b[2:]))
	if s == nil {
		s = &SequenceTracker{first: number, highest: number - 1, received: map[int64]int{}, dropped: map[int64]bool{}}
		t.streams[payloadType] = s
	}
	number = s.highest + int64(int16(uint16(number)-uint16(s.highest)))
	inOrder := number > s.highest
	if inOrder {
		s.missing += int(number - s.highest)
		s.highest = number
	}
	if payloadType == t.videoType && t.dropNth > 0 && !s.dropped[number] {
		t.videoPackets++
		if t.videoPackets%t.dropNth == 0 {
			s.dropped[number] = true
			s.droppedCount++
			return true
		}
	}
	if s.received[number] == 0 && number >= s.first {
		s.missing--
		if !inOrder {
			s.late++
		}
	}
	s.received[number]++
	return false
}

// waitComplete stops dropping packets, and waits until the last dropped ones have been
// retransmitted, for at most timeout.
func (t *Tap) waitComplete(timeout time.Duration) {
	for end := time.Now().Add(timeout); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		t.mu.Lock()
		t.dropNth = 0
		s := t.streams[t.videoType]
		complete := s == nil || s.missing == 0
		t.mu.Unlock()
		if complete {
			return
		}
	}
}

// fillReport copies the counts of a payload type into r.
func (t *Tap) fillReport(payloadType byte, r *TrackReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.streams[payloadType]
	if s == nil {
		return
	}
	r.Packets = len(s.received)
	r.Dropped = s.droppedCount
	for _, times := range s.received {
		r.Duplicates += times - 1
	}
	r.Lost = s.missing
}

// addProgress adds the number of missing packets (between the first and the newest) and of late
// packets (received after a newer one).
func (t *Tap) addProgress(payloadType byte, report map[string]any) map[string]any {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.streams[payloadType]; s != nil {
		report["missing"], report["late"] = s.missing, s.late
	}
	return report
}

// newestSequenceNumbers returns the newest n sequence numbers that were received.
func (t *Tap) newestSequenceNumbers(payloadType byte, n int) []uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []uint16
	if s := t.streams[payloadType]; s != nil {
		for number := s.highest; number >= s.first && len(out) < n; number-- {
			if s.received[number] > 0 {
				out = append(out, uint16(number))
			}
		}
	}
	return out
}
