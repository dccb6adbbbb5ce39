package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pion/webrtc/v4"
)

// The policy of the player page (media/web/assets/player/webrtc.js and attempts.js).
const (
	silenceTimeout  = 1200 * time.Millisecond
	pollInterval    = 200 * time.Millisecond
	maxInitialDelay = 200 * time.Millisecond
	nextAttempt     = 300 * time.Millisecond
	maxParallel     = 4
	firstRetry      = 100 * time.Millisecond
	maxRetry        = time.Second
	mediaTimeout    = 3500 * time.Millisecond
	postTimeLimit   = 10 * time.Second
)

var attemptTimeouts = []time.Duration{1000, 1000, 1000, 1500, 2000, 3000, 5000} // ms

// RejoinReport is printed periodically. Pauses are the longest times between two video packets since
// the last SIGUSR1, one per peer, including those that last.
type RejoinReport struct {
	Playing  int   `json:"playing"`
	Sessions int   `json:"sessions"`
	PausesMs []int `json:"pauses_ms"`
}

// rejoiner behaves like a player page whose node may die: it opens another session when its node
// sends nothing any more.
type rejoiner struct {
	mu          sync.Mutex
	lastVideo   time.Time
	lastPacket  time.Time
	longest     time.Duration
	sessions    int
	everPlaying bool
}

// runRejoiners plays with n peers until the process is killed.
func runRejoiners(o Options, n int) error {
	peers := make([]*rejoiner, n)
	for i := range peers {
		peers[i] = &rejoiner{}
		go peers[i].run(o)
		// A burst of handshakes would only measure this machine.
		time.Sleep(20 * time.Millisecond)
	}
	reset := make(chan os.Signal, 1)
	signal.Notify(reset, syscall.SIGUSR1)
	tick := time.NewTicker(pollInterval)
	for {
		select {
		case <-reset:
			for _, p := range peers {
				p.mu.Lock()
				p.longest = 0
				p.mu.Unlock()
			}
			emit("reset", nil)
		case <-tick.C:
			report := RejoinReport{}
			for _, p := range peers {
				p.mu.Lock()
				lasting := time.Since(p.lastVideo)
				if p.everPlaying && lasting < silenceTimeout {
					report.Playing++
				}
				report.Sessions += p.sessions
				report.PausesMs = append(report.PausesMs, int(max(p.longest, lasting).Milliseconds()))
				p.mu.Unlock()
			}
			emit("rejoin", report)
		}
	}
}

func (p *rejoiner) run(o Options) {
	var current *Viewer
	for {
		if current == nil || p.isLost() {
			next, err := p.join(o)
			if err != nil {
				fmt.Fprintln(os.Stderr, "rejoin:", err)
				continue
			}
			if current != nil {
				_ = current.pc.Close()
			}
			current = next
		}
		time.Sleep(pollInterval)
	}
}

func (p *rejoiner) isLost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.lastPacket) > silenceTimeout
}

// join opens a session and returns once it delivers video.
func (p *rejoiner) join(o Options) (*Viewer, error) {
	v := &Viewer{options: o, lastPackets: map[string]lastPacket{}, started: make(chan struct{}), closed: make(chan struct{})}
	if err := v.createPeerConnection(); err != nil {
		return nil, err
	}
	first := make(chan struct{})
	var once sync.Once
	v.pc.OnTrack(func(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		go func() {
			for {
				if _, _, err := receiver.ReadRTCP(); err != nil {
					return
				}
				p.record(false)
			}
		}()
		for {
			if _, _, err := track.ReadRTP(); err != nil {
				return
			}
			isVideo := track.Kind() == webrtc.RTPCodecTypeVideo
			p.record(isVideo)
			if isVideo {
				once.Do(func() { close(first) })
			}
		}
	})
	sdp, err := v.createOffer()
	if err == nil {
		err = p.negotiate(v, sdp)
	}
	if err != nil {
		_ = v.pc.Close()
		return nil, err
	}
	select {
	case <-first:
		p.mu.Lock()
		p.sessions++
		p.mu.Unlock()
		return v, nil
	case <-time.After(mediaTimeout):
		_ = v.pc.Close()
		return nil, fmt.Errorf("no video from %s", v.session)
	}
}

func (p *rejoiner) negotiate(v *Viewer, sdp string) error {
	response, body, err := postPersistently(v.options.URL, sdp)
	if err != nil {
		return err
	}
	accepted, err := v.acceptAnswer(response, body)
	if err == nil && !accepted {
		err = fmt.Errorf("%d %s", v.report.Status, v.report.Body)
	}
	return err
}

func (p *rejoiner) record(isVideo bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastPacket = time.Now()
	if !isVideo {
		return
	}
	if p.everPlaying {
		p.longest = max(p.longest, p.lastPacket.Sub(p.lastVideo))
	}
	p.lastVideo, p.everPlaying = p.lastPacket, true
}

type attemptResult struct {
	response *http.Response
	body     []byte
	err      error
}

// postPersistently sends the offer until a node answers it, each attempt on a connection of its own.
func postPersistently(url, sdp string) (*http.Response, []byte, error) {
	time.Sleep(time.Duration(rand.Int64N(int64(maxInitialDelay))))
	end := time.Now().Add(postTimeLimit)
	results := make(chan attemptResult)
	all, cancel := context.WithCancel(context.Background())
	defer cancel()
	running, count, failures := 0, 0, 0
	startAt := time.Now()
	for {
		if running < maxParallel && !time.Now().Before(startAt) {
			timeout := attemptTimeouts[min(count, len(attemptTimeouts)-1)] * time.Millisecond
			go func() {
				result := post(all, url, sdp, timeout)
				select {
				case results <- result:
				case <-all.Done():
					discard(result)
				}
			}()
			running, count, startAt = running+1, count+1, time.Now().Add(nextAttempt)
		}
		wait := time.Until(startAt)
		if running == maxParallel {
			wait = time.Until(end)
		}
		select {
		case result := <-results:
			running--
			if result.err == nil && (result.response.StatusCode < 502 || result.response.StatusCode > 504) {
				return result.response, result.body, nil
			}
			if result.err == nil {
				// Refused at once: by the load balancer, or by a node that is full.
				startAt = time.Now().Add(time.Duration(float64(min(maxRetry, firstRetry<<failures)) * (0.5 + rand.Float64())))
				failures = min(failures+1, 8)
			}
		case <-time.After(max(0, wait)):
		}
		if time.Now().After(end) {
			return nil, nil, fmt.Errorf("no answer from %s", url)
		}
	}
}

func post(all context.Context, url, sdp string, timeout time.Duration) attemptResult {
	limited, cancel := context.WithTimeout(all, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodPost, url, strings.NewReader(sdp))
	if err != nil {
		return attemptResult{err: err}
	}
	request.Header.Set("Content-Type", "application/sdp")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return attemptResult{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return attemptResult{response, body, err}
}

// discard ends the session of an answer that arrived after another one.
func discard(result attemptResult) {
	if result.err != nil {
		return
	}
	if session, err := result.response.Location(); err == nil {
		if request, err := http.NewRequest(http.MethodDelete, session.String(), nil); err == nil {
			if response, err := http.DefaultClient.Do(request); err == nil {
				response.Body.Close()
			}
		}
	}
}
