// Command pion-whep watches one stream over WHEP with Pion, a WebRTC stack that shares no code with Headwater, and reports what
// came as one JSON object on standard output. Tests start it; its flags are the faults a viewer may have.
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

// Options are the flags.
type Options struct {
	URL         string
	Out         string
	Bind        string
	Seconds     float64
	UntilEnd    bool
	SRTP        string
	DropNth     int
	AskAgain    int
	PLI         int
	Attack      int
	Haunt       bool
	Forge       bool
	DeleteAtEnd bool
	Progress    time.Duration
	Crowd       int
}

// Report is what the program prints. Times are milliseconds since the POST was sent.
type Report struct {
	Status          int            `json:"status"`
	Body            string         `json:"body,omitempty"`
	AnswerMs        float64        `json:"answer_ms"`
	ConnectedMs     float64        `json:"connected_ms,omitempty"`
	FirstPacketMs   float64        `json:"first_packet_ms,omitempty"`
	SRTP            string         `json:"srtp,omitempty"`
	Remote          string         `json:"remote,omitempty"`
	Video           TrackReport    `json:"video"`
	Audio           TrackReport    `json:"audio"`
	PLISent         int            `json:"pli_sent"`
	Attacks         map[string]int `json:"attacks,omitempty"`
	ClosedByServer  bool           `json:"closed_by_server"`
	DeleteStatus    int            `json:"delete_status,omitempty"`
	DeleteAgain     int            `json:"delete_again,omitempty"`
	ConnectionState string         `json:"connection_state"`
}

// TrackReport is what came of one track, counted on the wire and after decryption.
type TrackReport struct {
	Codec         string `json:"codec,omitempty"`
	Packets       int    `json:"packets"`
	Lost          int    `json:"lost"`
	Dropped       int    `json:"dropped"`
	Again         int    `json:"again"`
	Frames        int    `json:"frames"`
	SenderReports int    `json:"sender_reports"`
	LipSyncMs     *int64 `json:"lip_sync_ms,omitempty"`
	Goodbye       bool   `json:"goodbye"`
}

func main() {
	var o Options
	flag.StringVar(&o.URL, "url", "", "WHEP address")
	flag.StringVar(&o.Out, "out", "", "folder for video.h264 and audio.ogg; none: only counts")
	flag.StringVar(&o.Bind, "bind", "127.0.0.1", "address of this end")
	flag.Float64Var(&o.Seconds, "seconds", 3, "how long to watch after the first picture, or to wait for one")
	flag.BoolVar(&o.UntilEnd, "until-end", false, "watch until the server ends it, `seconds` at the longest")
	flag.StringVar(&o.SRTP, "srtp", "any", "profiles to offer: gcm, sha1, or any")
	flag.IntVar(&o.DropNth, "drop", 0, "lose every nth video packet on its way in")
	flag.IntVar(&o.AskAgain, "again", 0, "ask once for the last n video packets although they came")
	flag.IntVar(&o.PLI, "pli", 0, "ask n times for a key frame")
	flag.IntVar(&o.Attack, "attack", 0, "send n datagrams of each bad kind to the media port while watching")
	flag.BoolVar(&o.Haunt, "haunt", false, "fall silent after the first picture, but for one old connectivity check")
	flag.BoolVar(&o.Forge, "forge", false, "name another certificate in the offer than the one that is used")
	flag.BoolVar(&o.DeleteAtEnd, "delete", true, "end the session with DELETE")
	flag.DurationVar(&o.Progress, "progress", 0, "say so often how many pictures and packets of video have come or not, and the longest pauses")
	flag.IntVar(&o.Crowd, "crowd", 0, "play with n peers that move to another node when theirs says so")
	flag.Parse()
	var report any
	var err error
	if o.Crowd > 0 {
		report, err = crowd(o, o.Crowd)
	} else {
		report, err = watch(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pion-whep:", err)
		os.Exit(1)
	}
	say("end", report)
}

// say prints one line of JSON: {"event": ..., "report": ...}.
func say(event string, report any) {
	line, err := json.Marshal(map[string]any{"event": event, "report": report})
	if err != nil {
		fmt.Fprintln(os.Stderr, "pion-whep:", err)
		os.Exit(1)
	}
	fmt.Println(string(line))
}

func profiles(name string) ([]dtls.SRTPProtectionProfile, error) {
	gcm, sha1 := dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80
	switch name {
	case "gcm":
		return []dtls.SRTPProtectionProfile{gcm}, nil
	case "sha1":
		return []dtls.SRTPProtectionProfile{sha1}, nil
	case "any":
		// As Chromium orders them: the server has to look further than the first.
		return []dtls.SRTPProtectionProfile{sha1, gcm}, nil
	default:
		return nil, fmt.Errorf("-srtp is gcm, sha1 or any, not %q", name)
	}
}

// forge changes the last digits of the offer's fingerprints.
func forge(sdp string) string {
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
