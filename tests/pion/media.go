package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"
	"github.com/pion/webrtc/v4/pkg/media/samplebuilder"
)

// maxLatePackets is the reordering depth: how many packets late a retransmission may arrive.
const maxLatePackets = 2000

// Recorder depacketizes one track and writes it in a format that a decoder can read.
type Recorder struct {
	mu            sync.Mutex
	codec         string
	payloadType   byte
	samples       *samplebuilder.SampleBuilder
	file          *os.File
	ogg           *oggwriter.OggWriter
	frames        int
	senderReports int
	lastReport    *rtcp.SenderReport
	goodbye       bool
	err           error
	packetPauses  PauseTracker
	framePauses   PauseTracker
}

// PauseTracker measures the longest time without an event.
type PauseTracker struct {
	newest  time.Time
	longest time.Duration
}

// observe records an event.
func (p *PauseTracker) observe() {
	now := time.Now()
	if !p.newest.IsZero() {
		p.longest = max(p.longest, now.Sub(p.newest))
	}
	p.newest = now
}

// takeLongestMs returns the longest pause, in milliseconds, that overlaps the time
// since the last call.
func (p *PauseTracker) takeLongestMs() float64 {
	longest := p.longest
	if !p.newest.IsZero() {
		longest = max(longest, time.Since(p.newest))
	}
	p.longest = 0
	return float64(longest.Microseconds()) / 1000
}

func newRecorder(track *webrtc.TrackRemote, folder string) *Recorder {
	r := &Recorder{codec: track.Codec().MimeType, payloadType: byte(track.PayloadType())}
	if strings.EqualFold(r.codec, webrtc.MimeTypeH264) {
		r.samples = samplebuilder.New(maxLatePackets, &codecs.H264Packet{}, 90000)
		if folder != "" {
			r.file, r.err = os.Create(filepath.Join(folder, "video.h264"))
		}
	} else if folder != "" {
		r.ogg, r.err = oggwriter.New(filepath.Join(folder, "audio.ogg"), 48000, 2)
	}
	return r
}

func (r *Recorder) addPacket(packet *rtp.Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packetPauses.observe()
	if r.samples == nil {
		r.frames++
		if r.ogg != nil && r.err == nil {
			r.err = r.ogg.WriteRTP(packet)
		}
		return
	}
	r.samples.Push(packet)
	r.writeFrames()
}

func (r *Recorder) writeFrames() {
	for sample := r.samples.Pop(); sample != nil; sample = r.samples.Pop() {
		r.frames++
		r.framePauses.observe()
		if r.file != nil && r.err == nil {
			_, r.err = r.file.Write(sample.Data)
		}
	}
}

// progress returns the number of frames so far, and the longest pauses between two packets and
// between two complete frames that overlap the time since the last call.
func (r *Recorder) progress() map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return map[string]any{"frames": r.frames, "pause_ms": r.packetPauses.takeLongestMs(), "frame_pause_ms": r.framePauses.takeLongestMs()}
}

func (r *Recorder) finish(report *TrackReport) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.samples != nil {
		r.samples.Flush()
		r.writeFrames()
	}
	if r.file != nil {
		r.file.Close()
	}
	if r.ogg != nil {
		r.ogg.Close()
	}
	report.Codec = r.codec
	report.Frames = r.frames
	report.SenderReports = r.senderReports
	report.Goodbye = r.goodbye
	return r.err
}

// readRTCP reads the RTCP packets of the track until it ends.
func (r *Recorder) readRTCP(receiver *webrtc.RTPReceiver) {
	for {
		packets, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		r.mu.Lock()
		for _, packet := range packets {
			switch packet := packet.(type) {
			case *rtcp.SenderReport:
				r.senderReports++
				r.lastReport = packet
			case *rtcp.Goodbye:
				r.goodbye = true
			}
		}
		r.mu.Unlock()
	}
}

// wallClockAt returns the sender's wall-clock time that corresponds to an RTP timestamp, from its
// last sender report.
func (r *Recorder) wallClockAt(timestamp uint32, clockHz int64) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lastReport == nil {
		return time.Time{}, false
	}
	ntp := r.lastReport.NTPTime
	const ntpToUnix = 2_208_988_800
	at := time.Unix(int64(ntp>>32)-ntpToUnix, int64((ntp&0xffffffff)*1_000_000_000>>32))
	ticks := int64(int32(timestamp - r.lastReport.RTPTime))
	return at.Add(time.Duration(ticks * int64(time.Second) / clockHz)), true
}
