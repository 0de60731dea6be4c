// Package dial connects to the daemon of this node.
package dial

import (
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// CallTimeout is the deadline of a unary call: far above the 50 ms that a read waits for a decision.
	CallTimeout = 5 * time.Second

	// reconnectMax bounds gRPC's own back-off, which would grow to two minutes: the daemon of a node
	// comes back within seconds.
	reconnectMax = 2 * time.Second

	// keepaliveTime is how often a silent connection is tried. The daemon takes pings of any pace
	// that is not a flood, without a stream too.
	keepaliveTime = 50 * time.Second

	// receiveBytesMax is what the daemon sends at most; gRPC's default of 4 MiB is less.
	receiveBytesMax = 16 << 20
)

// Target is what NVIDIA_DEVICE_API_TARGET says, or where the daemon listens by default.
func Target() string {
	if target := os.Getenv("NVIDIA_DEVICE_API_TARGET"); target != "" {
		return target
	}
	return "unix:///var/run/device-api/device.sock"
}

// Connect makes a connection; it is opened when the first call needs it, and again when it breaks.
func Connect(target string) (*grpc.ClientConn, error) {
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay = 100 * time.Millisecond
	reconnect.MaxDelay = reconnectMax
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(
			// A call waits, within its deadline, for a daemon that restarts.
			grpc.WaitForReady(true),
			grpc.MaxCallRecvMsgSize(receiveBytesMax),
		),
	)
}
