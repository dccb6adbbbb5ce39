package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/stun/v4"
)

// ForgeReport counts what passed between the server and the forged address.
type ForgeReport struct {
	Requests      int `json:"requests"`
	SentBytes     int `json:"sent_bytes"`
	Datagrams     int `json:"datagrams"`
	ReceivedBytes int `json:"received_bytes"`
}

const (
	forgedRequests = 20
	forgeInterval  = 100 * time.Millisecond
	// Longer than the server may continue to send to an address that it has not proved.
	forgeGrace = 2 * time.Second
)

// forge sends connectivity checks of this session from another address that answers nothing, as if
// their source address were forged. Each has valid credentials, a new transaction id and
// USE-CANDIDATE (RFC 8445 section 7.1.2): without a proof of the address, a server would move the
// media there.
func (v *Viewer) forge(ctx context.Context) (*ForgeReport, error) {
	local, err := iceCredentials(v.pc.LocalDescription().SDP)
	if err != nil {
		return nil, err
	}
	remote, err := iceCredentials(v.pc.RemoteDescription().SDP)
	if err != nil {
		return nil, err
	}
	victim, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(v.options.Forge)})
	if err != nil {
		return nil, err
	}
	defer victim.Close()
	v.tap.mu.Lock()
	server := v.tap.server
	v.tap.mu.Unlock()
	var report ForgeReport
	for range forgedRequests {
		request, err := stun.Build(stun.BindingRequest, stun.TransactionID,
			stun.NewUsername(remote.ufrag+":"+local.ufrag), ice.UseCandidate(), ice.PriorityAttr(1<<31-1),
			ice.AttrControlling(1), stun.NewShortTermIntegrity(remote.pwd), stun.Fingerprint)
		if err != nil {
			return nil, err
		}
		if _, err := victim.WriteToUDP(request.Raw, server); err != nil {
			return nil, err
		}
		report.Requests++
		report.SentBytes += len(request.Raw)
		if err := report.receive(ctx, victim, forgeInterval); err != nil {
			return nil, err
		}
	}
	return &report, report.receive(ctx, victim, forgeGrace)
}

// receive counts what arrives within this duration.
func (r *ForgeReport) receive(ctx context.Context, victim *net.UDPConn, duration time.Duration) error {
	if err := victim.SetReadDeadline(time.Now().Add(duration)); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, _, err := victim.ReadFromUDP(buffer)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return nil
		}
		if err != nil {
			return err
		}
		r.Datagrams++
		r.ReceivedBytes += n
	}
	return ctx.Err()
}

type credentials struct{ ufrag, pwd string }

// iceCredentials reads the first ICE credentials of a session description (RFC 8839 section 5.4).
func iceCredentials(sdp string) (credentials, error) {
	var found credentials
	for line := range strings.SplitSeq(sdp, "\r\n") {
		if value, ok := strings.CutPrefix(line, "a=ice-ufrag:"); ok && found.ufrag == "" {
			found.ufrag = value
		}
		if value, ok := strings.CutPrefix(line, "a=ice-pwd:"); ok && found.pwd == "" {
			found.pwd = value
		}
	}
	if found.ufrag == "" || found.pwd == "" {
		return found, fmt.Errorf("no ICE credentials in a session description of %d bytes", len(sdp))
	}
	return found, nil
}
