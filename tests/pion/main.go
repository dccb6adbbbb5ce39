// Command pion-whep plays one stream over WHEP with Pion, a WebRTC stack that shares no code with
// Headwater, and prints what it received as one JSON object per line on standard output. The tests
// start it; its flags inject the faults that a viewer can have.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pion/dtls/v3"
)

// Options holds the command-line flags.
type Options struct {
	URL              string
	Out              string
	Bind             string
	Seconds          float64
	UntilEnd         bool
	SRTP             string
	DropNth          int
	NackLast         int
	PLI              int
	Attack           int
	Forge            string
	ReplayCheck      bool
	WrongFingerprint bool
	DeleteAtEnd      bool
	Progress         time.Duration
	Movers           int
	Rejoiners        int
}

// Report is the final report. Times are in milliseconds since the POST was sent.
type Report struct {
	Status               int            `json:"status"`
	Body                 string         `json:"body,omitempty"`
	AnswerMs             float64        `json:"answer_ms"`
	ConnectedMs          float64        `json:"connected_ms,omitempty"`
	FirstPacketMs        float64        `json:"first_packet_ms,omitempty"`
	SRTP                 string         `json:"srtp,omitempty"`
	Remote               string         `json:"remote,omitempty"`
	Video                TrackReport    `json:"video"`
	Audio                TrackReport    `json:"audio"`
	PLISent              int            `json:"pli_sent"`
	Attacks              map[string]int `json:"attacks,omitempty"`
	ClosedByServer       bool           `json:"closed_by_server"`
	DeleteStatus         int            `json:"delete_status,omitempty"`
	RepeatedDeleteStatus int            `json:"repeated_delete_status,omitempty"`
	ConnectionState      string         `json:"connection_state"`
}

// TrackReport counts what one track received, on the wire and after decryption.
type TrackReport struct {
	Codec         string `json:"codec,omitempty"`
	Packets       int    `json:"packets"`
	Lost          int    `json:"lost"`
	Dropped       int    `json:"dropped"`
	Duplicates    int    `json:"duplicates"`
	Frames        int    `json:"frames"`
	SenderReports int    `json:"sender_reports"`
	LipSyncMs     *int64 `json:"lip_sync_ms,omitempty"`
	Goodbye       bool   `json:"goodbye"`
}

func main() {
	var o Options
	flag.StringVar(&o.URL, "url", "", "WHEP address")
	flag.StringVar(&o.Out, "out", "", "folder for video.h264 and audio.ogg; empty: only count")
	flag.StringVar(&o.Bind, "bind", "127.0.0.1", "local address")
	flag.Float64Var(&o.Seconds, "seconds", 3, "how long to play after the first frame, or to wait for it")
	flag.BoolVar(&o.UntilEnd, "until-end", false, "play until the server ends the session, for at most `seconds`")
	flag.StringVar(&o.SRTP, "srtp", "any", "profiles to offer: gcm, sha1, or any")
	flag.IntVar(&o.DropNth, "drop", 0, "drop every nth incoming video packet")
	flag.IntVar(&o.NackLast, "nack", 0, "send one NACK for the last n video packets, although they were received")
	flag.IntVar(&o.PLI, "pli", 0, "request a key frame n times")
	flag.IntVar(&o.Attack, "attack", 0, "send n datagrams of each bad kind to the media port while playing")
	flag.StringVar(&o.Forge, "forge", "", "send valid checks from this address, which answers nothing, and count what arrives there")
	flag.BoolVar(&o.ReplayCheck, "replay-check", false, "after the first frame, send only replays of an old connectivity check")
	flag.BoolVar(&o.WrongFingerprint, "wrong-fingerprint", false, "put a fingerprint into the offer that does not match the certificate")
	flag.BoolVar(&o.DeleteAtEnd, "delete", true, "end the session with DELETE")
	flag.DurationVar(&o.Progress, "progress", 0, "interval of progress lines: frames, missing packets and longest pauses of the video track; 0: none")
	flag.IntVar(&o.Movers, "movers", 0, "play with n peers that move to another node when their node tells them to")
	flag.IntVar(&o.Rejoiners, "rejoiners", 0, "play with n peers that open another session when their node is lost, until killed")
	flag.Parse()
	var report any
	var err error
	switch {
	case o.Rejoiners > 0:
		err = runRejoiners(o, o.Rejoiners)
	case o.Movers > 0:
		report, err = runMovers(o, o.Movers)
	default:
		report, err = runViewer(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pion-whep:", err)
		os.Exit(1)
	}
	emit("end", report)
}

// emit prints one line of JSON: {"event": ..., "report": ...}.
func emit(event string, report any) {
	line, err := json.Marshal(map[string]any{"event": event, "report": report})
	if err != nil {
		fmt.Fprintln(os.Stderr, "pion-whep:", err)
		os.Exit(1)
	}
	fmt.Println(string(line))
}

func srtpProfiles(name string) ([]dtls.SRTPProtectionProfile, error) {
	gcm, sha1 := dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80
	switch name {
	case "gcm":
		return []dtls.SRTPProtectionProfile{gcm}, nil
	case "sha1":
		return []dtls.SRTPProtectionProfile{sha1}, nil
	case "any":
		// In Chromium's order: the server has to look beyond the first profile.
		return []dtls.SRTPProtectionProfile{sha1, gcm}, nil
	default:
		return nil, fmt.Errorf("-srtp is gcm, sha1 or any, not %q", name)
	}
}

// alterFingerprints changes the last byte of the fingerprints in the offer.
func alterFingerprints(sdp string) string {
	lines := strings.Split(sdp, "\r\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "a=fingerprint:") {
			continue
		}
		end := ":00"
		if strings.HasSuffix(line, end) {
			end = ":01"
		}
		lines[i] = line[:len(line)-3] + end
	}
	return strings.Join(lines, "\r\n")
}

func sinceMs(start time.Time) float64 {
	return float64(time.Since(start).Microseconds()) / 1000
}
