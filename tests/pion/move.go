package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
)

// MoveReport is the final report of peers that move to another node when their node tells them to.
// Gaps are between two video packets, whichever session they belong to.
type MoveReport struct {
	Peers    int     `json:"peers"`
	Playing  int     `json:"playing"`
	Moved    int     `json:"moved"`
	Lost     int     `json:"lost"`
	MaxGapMs float64 `json:"max_gap_ms"`
}

// mover behaves like the player page: it plays, polls the session status, and opens its next
// session before it closes the current one.
type mover struct {
	mu         sync.Mutex
	lastFrame  time.Time
	longestGap time.Duration
	moved      bool
	err        error
}

// runMovers plays with n peers until all have moved or the time is over, and for two more seconds.
func runMovers(o Options, n int) (*MoveReport, error) {
	movers := make([]*mover, n)
	var ready, done sync.WaitGroup
	for i := range movers {
		movers[i] = &mover{}
		ready.Add(1)
		done.Add(1)
		go func(m *mover) {
			defer done.Done()
			m.err = m.run(o, ready.Done)
		}(movers[i])
	}
	ready.Wait()
	emit("playing", map[string]int{"peers": n})
	done.Wait()
	report := &MoveReport{Peers: n}
	for _, m := range movers {
		if m.err != nil {
			report.Lost++
			fmt.Println("lost:", m.err)
		} else {
			report.Playing++
		}
		if m.moved {
			report.Moved++
		}
		report.MaxGapMs = max(report.MaxGapMs, float64(m.longestGap.Microseconds())/1000)
	}
	return report, nil
}

func (m *mover) run(o Options, ready func()) error {
	var once sync.Once
	defer once.Do(ready)
	v, err := m.join(o, o.URL)
	if err != nil {
		return err
	}
	once.Do(ready)
	end := time.Now().Add(time.Duration(o.Seconds * float64(time.Second)))
	for time.Now().Before(end) {
		time.Sleep(500 * time.Millisecond)
		stay, otherNode, err := fetchStatus(v.session)
		if err != nil || stay {
			continue
		}
		next, err := m.join(o, o.URL)
		if err != nil && otherNode != "" {
			next, err = m.join(o, otherNode)
		}
		if err != nil {
			continue
		}
		m.close(v)
		v = next
		m.moved = true
		break
	}
	// From now on, only the new node sends frames.
	time.Sleep(2 * time.Second)
	m.mu.Lock()
	silent := time.Since(m.lastFrame)
	m.mu.Unlock()
	m.close(v)
	if silent > time.Second {
		return fmt.Errorf("no video frame for %v", silent)
	}
	return nil
}

func (m *mover) close(v *Viewer) {
	if request, err := http.NewRequest(http.MethodDelete, v.session.String(), nil); err == nil {
		if response, err := http.DefaultClient.Do(request); err == nil {
			response.Body.Close()
		}
	}
	v.pc.Close()
}

// join opens a session and returns once it delivers video.
func (m *mover) join(o Options, address string) (*Viewer, error) {
	o.URL = address
	v := &Viewer{options: o, lastPackets: map[string]lastPacket{}, started: make(chan struct{}), closed: make(chan struct{})}
	if err := v.createPeerConnection(); err != nil {
		return nil, err
	}
	first := make(chan struct{})
	var once sync.Once
	v.pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			if _, _, err := track.ReadRTP(); err != nil {
				return
			}
			if track.Kind() == webrtc.RTPCodecTypeVideo {
				m.recordPacket(time.Now())
				once.Do(func() { close(first) })
			}
		}
	})
	accepted, err := v.sendOffer()
	if err == nil && !accepted {
		err = fmt.Errorf("%d %s", v.report.Status, v.report.Body)
	}
	if err != nil {
		v.pc.Close()
		return nil, err
	}
	select {
	case <-first:
		return v, nil
	case <-time.After(10 * time.Second):
		v.pc.Close()
		return nil, fmt.Errorf("no video frame from %s", address)
	}
}

func (m *mover) recordPacket(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.lastFrame.IsZero() {
		m.longestGap = max(m.longestGap, now.Sub(m.lastFrame))
	}
	m.lastFrame = now
}

func fetchStatus(session *url.URL) (bool, string, error) {
	response, err := http.Get(session.String())
	if err != nil {
		return true, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return true, "", fmt.Errorf("%d %s", response.StatusCode, body)
	}
	answer := struct {
		Stay      bool   `json:"stay"`
		Elsewhere string `json:"elsewhere"`
	}{}
	err = json.NewDecoder(bytes.NewReader(body)).Decode(&answer)
	return answer.Stay, answer.Elsewhere, err
}
