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

// MoveReport is what a crowd says that moves when its node tells it to. Gaps are between two packets of pictures, whichever session
// they came by.
type MoveReport struct {
	Peers    int     `json:"peers"`
	Playing  int     `json:"playing"`
	Moved    int     `json:"moved"`
	Lost     int     `json:"lost"`
	MaxGapMs float64 `json:"max_gap_ms"`
}

// mover is a page: it plays, asks whether to stay, and opens its next session before it leaves the one it has.
type mover struct {
	mu     sync.Mutex
	last   time.Time
	gap    time.Duration
	moved  bool
	failed error
}

// crowd plays with n peers until all have moved, or for the time given, and two seconds more.
func crowd(o Options, n int) (*MoveReport, error) {
	movers := make([]*mover, n)
	var ready, done sync.WaitGroup
	for i := range movers {
		movers[i] = &mover{}
		ready.Add(1)
		done.Add(1)
		go func(m *mover) {
			defer done.Done()
			m.failed = m.run(o, ready.Done)
		}(movers[i])
	}
	ready.Wait()
	say("playing", map[string]int{"peers": n})
	done.Wait()
	report := &MoveReport{Peers: n}
	for _, m := range movers {
		if m.failed != nil {
			report.Lost++
			fmt.Println("lost:", m.failed)
		} else {
			report.Playing++
		}
		if m.moved {
			report.Moved++
		}
		report.MaxGapMs = max(report.MaxGapMs, float64(m.gap.Microseconds())/1000)
	}
	return report, nil
}

func (m *mover) run(o Options, ready func()) error {
	var once sync.Once
	defer once.Do(ready)
	v, err := m.open(o, o.URL)
	if err != nil {
		return err
	}
	once.Do(ready)
	end := time.Now().Add(time.Duration(o.Seconds * float64(time.Second)))
	for time.Now().Before(end) {
		time.Sleep(500 * time.Millisecond)
		stay, elsewhere, err := status(v.session)
		if err != nil || stay {
			continue
		}
		next, err := m.open(o, o.URL)
		if err != nil && elsewhere != "" {
			next, err = m.open(o, elsewhere)
		}
		if err != nil {
			continue
		}
		m.close(v)
		v = next
		m.moved = true
		break
	}
	// What comes now comes from the new node alone.
	time.Sleep(2 * time.Second)
	m.mu.Lock()
	silent := time.Since(m.last)
	m.mu.Unlock()
	m.close(v)
	if silent > time.Second {
		return fmt.Errorf("no picture for %v", silent)
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

// open begins a session and returns once it brings pictures.
func (m *mover) open(o Options, address string) (*Viewer, error) {
	o.URL = address
	v := &Viewer{options: o, newest: map[string]newestPacket{}, started: make(chan struct{}), closed: make(chan struct{})}
	if err := v.open(); err != nil {
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
				m.note(time.Now())
				once.Do(func() { close(first) })
			}
		}
	})
	accepted, err := v.offer()
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
		return nil, fmt.Errorf("no picture from %s", address)
	}
}

func (m *mover) note(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.last.IsZero() {
		m.gap = max(m.gap, now.Sub(m.last))
	}
	m.last = now
}

func status(session *url.URL) (bool, string, error) {
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
