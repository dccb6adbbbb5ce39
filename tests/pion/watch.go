package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// Viewer is one WHEP session, from the offer to the end.
type Viewer struct {
	options     Options
	tap         *Tap
	pc          *webrtc.PeerConnection
	start       time.Time
	session     *url.URL
	mu          sync.Mutex
	video       *Recorder
	audio       *Recorder
	videoSSRC   webrtc.SSRC
	lastPackets map[string]lastPacket
	started     chan struct{}
	closed      chan struct{}
	report      Report
}

type lastPacket struct {
	timestamp uint32
	at        time.Time
}

func runViewer(o Options) (*Report, error) {
	v := &Viewer{options: o, lastPackets: map[string]lastPacket{}, started: make(chan struct{}), closed: make(chan struct{})}
	if err := v.createPeerConnection(); err != nil {
		return nil, err
	}
	defer v.pc.Close()
	accepted, err := v.sendOffer()
	if err != nil || !accepted {
		return &v.report, err
	}
	if err := v.watch(); err != nil {
		return nil, err
	}
	return v.finish()
}

// createPeerConnection creates a peer connection with Pion's default codecs and
// interceptors on a Tap.
func (v *Viewer) createPeerConnection() error {
	tap, err := newTap(v.options.Bind, v.options.DropNth)
	if err != nil {
		return err
	}
	v.tap = tap
	var settings webrtc.SettingEngine
	offered, err := srtpProfiles(v.options.SRTP)
	if err != nil {
		return err
	}
	settings.SetSRTPProtectionProfiles(offered...)
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	settings.SetICEUDPMux(ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: tap}))
	var media webrtc.MediaEngine
	if err := media.RegisterDefaultCodecs(); err != nil {
		return err
	}
	var interceptors interceptor.Registry
	if err := webrtc.RegisterDefaultInterceptors(&media, &interceptors); err != nil {
		return err
	}
	api := webrtc.NewAPI(
		webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(&media), webrtc.WithInterceptorRegistry(&interceptors))
	v.pc, err = api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return err
	}
	v.pc.OnTrack(v.onTrack)
	var once sync.Once
	v.pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			v.mu.Lock()
			v.report.ConnectedMs = sinceMs(v.start)
			v.mu.Unlock()
		case webrtc.PeerConnectionStateClosed, webrtc.PeerConnectionStateFailed:
			once.Do(func() { close(v.closed) })
		}
	})
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		direction := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
		if _, err := v.pc.AddTransceiverFromKind(kind, direction); err != nil {
			return err
		}
	}
	return nil
}

// sendOffer POSTs the offer. It returns false if the server refused it; the report
// then holds the answer.
func (v *Viewer) sendOffer() (bool, error) {
	sdp, err := v.createOffer()
	if err != nil {
		return false, err
	}
	v.start = time.Now()
	response, err := http.Post(v.options.URL, "application/sdp", strings.NewReader(sdp))
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return false, err
	}
	return v.acceptAnswer(response, body)
}

// createOffer returns the offer with all candidates.
func (v *Viewer) createOffer() (string, error) {
	offer, err := v.pc.CreateOffer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(v.pc)
	if err := v.pc.SetLocalDescription(offer); err != nil {
		return "", err
	}
	<-gathered
	sdp := v.pc.LocalDescription().SDP
	if v.options.WrongFingerprint {
		sdp = alterFingerprints(sdp)
	}
	return sdp, nil
}

// acceptAnswer applies the answer in a response to the offer.
func (v *Viewer) acceptAnswer(response *http.Response, body []byte) (bool, error) {
	v.report.Status = response.StatusCode
	v.report.AnswerMs = sinceMs(v.start)
	if response.StatusCode != http.StatusCreated {
		v.report.Body = string(body)
		return false, nil
	}
	if kind := response.Header.Get("Content-Type"); kind != "application/sdp" {
		return false, fmt.Errorf("the answer has the type %q", kind)
	}
	var err error
	if v.session, err = response.Location(); err != nil {
		return false, err
	}
	v.tap.mu.Lock()
	v.tap.videoType = videoType(string(body))
	v.tap.mu.Unlock()
	return true, v.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(body)})
}

// videoType reads the first payload type of the answer's video section.
func videoType(sdp string) byte {
	var payloadType byte
	for line := range strings.SplitSeq(sdp, "\r\n") {
		if fields := strings.Fields(line); len(fields) > 3 && fields[0] == "m=video" {
			_, _ = fmt.Sscan(fields[3], &payloadType)
		}
	}
	return payloadType
}

func (v *Viewer) onTrack(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	recorder := newRecorder(track, v.options.Out)
	v.mu.Lock()
	if track.Kind() == webrtc.RTPCodecTypeVideo {
		v.video, v.videoSSRC = recorder, track.SSRC()
		close(v.started)
	} else {
		v.audio = recorder
	}
	v.mu.Unlock()
	go recorder.readRTCP(receiver)
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		recorder.addPacket(packet)
		v.mu.Lock()
		v.lastPackets[track.Kind().String()] = lastPacket{packet.Timestamp, time.Now()}
		v.mu.Unlock()
	}
}

// watch plays for the requested time and injects the faults that the options request.
func (v *Viewer) watch() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(v.options.Seconds*float64(time.Second)))
	defer cancel()
	select {
	case <-v.started:
	case <-v.closed:
		v.report.ClosedByServer = true
		return nil
	case <-ctx.Done():
		return nil
	}
	v.tap.mu.Lock()
	v.report.FirstPacketMs = float64(v.tap.firstPacket.Sub(v.start).Microseconds()) / 1000
	v.tap.mu.Unlock()
	emit("playing", map[string]any{"first_packet_ms": v.report.FirstPacketMs})
	ctx, cancel = context.WithTimeout(context.Background(), time.Duration(v.options.Seconds*float64(time.Second)))
	defer cancel()
	if err := v.injectFaults(ctx); err != nil {
		return err
	}
	if v.options.Progress > 0 {
		go v.reportProgress(ctx)
	}
	select {
	case <-v.closed:
		v.report.ClosedByServer = true
	case <-ctx.Done():
		if v.options.UntilEnd {
			return errors.New("the server did not end the session in time")
		}
		v.tap.waitComplete(2 * time.Second)
	}
	return nil
}

// reportProgress emits progress lines until ctx or the session ends.
func (v *Viewer) reportProgress(ctx context.Context) {
	tick := time.NewTicker(v.options.Progress)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			v.mu.Lock()
			video := v.video
			v.mu.Unlock()
			emit("progress", v.tap.addProgress(video.payloadType, video.progress()))
		case <-v.closed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// injectFaults sends unnecessary NACKs and key frame requests, and the attacks.
func (v *Viewer) injectFaults(ctx context.Context) error {
	v.mu.Lock()
	ssrc, payloadType := uint32(v.videoSSRC), v.video.payloadType
	v.mu.Unlock()
	if n := v.options.NackLast; n > 0 {
		var numbers []uint16
		for len(numbers) < n && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
			numbers = v.tap.newestSequenceNumbers(payloadType, n)
		}
		nack := &rtcp.TransportLayerNack{MediaSSRC: ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(numbers)}
		if err := v.pc.WriteRTCP([]rtcp.Packet{nack}); err != nil {
			return err
		}
	}
	for range v.options.PLI {
		if err := v.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}}); err != nil {
			return err
		}
		v.report.PLISent++
	}
	if v.options.Attack > 0 {
		sent, err := attack(v.tap, v.options.Attack)
		v.report.Attacks = sent
		emit("attacked", sent)
		return err
	}
	if v.options.Forge != "" {
		report, err := v.forge(ctx)
		emit("forged", report)
		return err
	}
	if v.options.ReplayCheck {
		return v.tap.replayCheck(ctx)
	}
	return nil
}

// finish ends the session and completes the report.
func (v *Viewer) finish() (*Report, error) {
	v.report.ConnectionState = v.pc.ConnectionState().String()
	for _, stats := range v.pc.GetStats() {
		if transport, ok := stats.(webrtc.TransportStats); ok {
			v.report.SRTP = transport.SRTPCipher
		}
	}
	if pair, err := v.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair(); err == nil && pair != nil {
		v.report.Remote = pair.Remote.Address
	}
	if v.options.DeleteAtEnd {
		var err error
		if v.report.DeleteStatus, err = v.delete(); err != nil {
			return nil, err
		}
		if v.report.RepeatedDeleteStatus, err = v.deleteUntilGone(); err != nil {
			return nil, err
		}
	}
	v.mu.Lock()
	video, audio := v.video, v.audio
	v.mu.Unlock()
	if video != nil && audio != nil {
		v.report.Video.LipSyncMs = v.lipSyncMs(video, audio)
	}
	v.pc.Close()
	for _, track := range []struct {
		recorder *Recorder
		report   *TrackReport
	}{{video, &v.report.Video}, {audio, &v.report.Audio}} {
		if track.recorder == nil {
			continue
		}
		if err := track.recorder.finish(track.report); err != nil {
			return nil, err
		}
		v.tap.fillReport(track.recorder.payloadType, track.report)
	}
	return &v.report, nil
}

// lipSyncMs returns how much later the newest video frame is than the newest audio packet by the
// sender reports, less the difference of their arrival times.
func (v *Viewer) lipSyncMs(video, audio *Recorder) *int64 {
	v.mu.Lock()
	lastVideo, lastAudio := v.lastPackets["video"], v.lastPackets["audio"]
	v.mu.Unlock()
	videoTime, ok := video.wallClockAt(lastVideo.timestamp, 90000)
	audioTime, ok2 := audio.wallClockAt(lastAudio.timestamp, 48000)
	if !ok || !ok2 {
		return nil
	}
	ms := (videoTime.Sub(audioTime) - lastVideo.at.Sub(lastAudio.at)).Milliseconds()
	return &ms
}

func (v *Viewer) delete() (int, error) {
	request, err := http.NewRequest(http.MethodDelete, v.session.String(), nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}

// deleteUntilGone repeats the DELETE until the server answers 404, for at most two seconds.
func (v *Viewer) deleteUntilGone() (int, error) {
	deadline := time.Now().Add(2 * time.Second)
	for {
		status, err := v.delete()
		if err != nil || status == http.StatusNotFound || time.Now().After(deadline) {
			return status, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
