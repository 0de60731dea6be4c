// Command consumer keeps a view of the GPUs of this node, and prints every change of it.
//
// It is what a device plugin or a scheduler does: list; watch from the list's version; when the stream
// breaks, resume from the last version seen, so that nothing is missed and nothing comes twice; and
// list again when the daemon can't go back that far (OUT_OF_RANGE).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/device-api/device-api-server/examples/go/gen/native"
	"github.com/device-api/device-api-server/examples/go/internal/dial"
)

// Between two watches that came to nothing. gRPC backs off by itself while it can't connect; this is
// for a daemon that answers, and refuses.
const (
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
)

var errEnough = errors.New("seen as many events as were asked for")

type consumer struct {
	client native.GpuServiceClient
	// What is known: of each GPU the newest object.
	gpus map[string]*native.Gpu
	// All changes up to this version are in gpus; 0: nothing is known yet.
	version int64
	// Events still to be printed; negative: no end.
	left int
}

func main() {
	log.SetFlags(0)
	target := flag.String("target", dial.Target(), "where the daemon listens")
	events := flag.Int("events", -1, "end after so many events; negative: never")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	connection, err := dial.Connect(*target)
	if err != nil {
		log.Fatalf("connecting to %s: %v", *target, err)
	}
	defer connection.Close()
	c := consumer{client: native.NewGpuServiceClient(connection), left: *events}
	if err := c.run(ctx); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// run follows the daemon over breaks, restarts and expiries. It ends when ctx does, when enough events
// were seen, or with what no repetition would mend.
func (c *consumer) run(ctx context.Context) error {
	delay := retryMin
	for ctx.Err() == nil {
		before := c.version
		err := c.follow(ctx)
		switch code := status.Code(err); {
		case errors.Is(err, errEnough):
			return nil
		case code == codes.OutOfRange:
			// What happened meanwhile can't be told one by one any more: start from a new list.
			fmt.Printf("EXPIRED version=%d\n", c.version)
			c.version = 0
			continue
		case code == codes.InvalidArgument, code == codes.PermissionDenied, code == codes.Unimplemented:
			return err
		default:
			fmt.Printf("ENDED %s\n", code)
			log.Print(err)
		}
		if c.version != before {
			delay = retryMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
			delay = min(2*delay, retryMax)
		}
	}
	return ctx.Err()
}

// follow lists, where nothing is known yet, and watches until the stream ends.
func (c *consumer) follow(ctx context.Context) error {
	if c.version == 0 {
		if err := c.list(ctx); err != nil {
			return err
		}
	}
	// A watch has no deadline. Cancelling frees the stream, whichever way this function ends.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fmt.Printf("WATCH after=%d\n", c.version)
	stream, err := c.client.WatchGpus(ctx, &native.WatchGpusRequest{
		ResourceVersion: c.version,
		// They move the version on while nothing changes, so that a resume finds it in the history.
		AllowBookmarks: true,
	})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := c.take(event); err != nil {
			return err
		}
	}
}

// list replaces what is known by what is there.
func (c *consumer) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dial.CallTimeout)
	defer cancel()
	list, err := c.client.ListGpus(ctx, &native.ListGpusRequest{})
	if err != nil {
		return err
	}
	fmt.Printf("LIST version=%d gpus=%d\n", list.ResourceVersion, len(list.Gpus))
	gone := c.gpus
	c.gpus = make(map[string]*native.Gpu, len(list.Gpus))
	for _, gpu := range list.Gpus {
		show("GPU", gpu)
		c.gpus[key(gpu)] = gpu
		delete(gone, key(gpu))
	}
	for _, gpu := range gone {
		show("GONE", gpu)
	}
	c.version = list.ResourceVersion
	return nil
}

// take applies one event. The version moves only after that: a resume repeats what was not applied.
func (c *consumer) take(event *native.WatchGpusResponse) error {
	kind, gpu := strings.TrimPrefix(event.Type.String(), "EVENT_TYPE_"), event.Gpu
	switch event.Type {
	case native.EventType_EVENT_TYPE_ADDED, native.EventType_EVENT_TYPE_MODIFIED:
		c.gpus[key(gpu)] = gpu
		show(kind, gpu)
	case native.EventType_EVENT_TYPE_DELETED:
		delete(c.gpus, key(gpu))
		show(kind, gpu)
	case native.EventType_EVENT_TYPE_BOOKMARK:
		fmt.Printf("%s version=%d\n", kind, event.ResourceVersion)
	default:
		log.Printf("skipped an event of a type that is not known here: %s", kind)
	}
	c.version = event.ResourceVersion
	if c.left--; c.left == 0 {
		return errEnough
	}
	return nil
}

func key(gpu *native.Gpu) string {
	return gpu.Namespace + "/" + gpu.Name
}

// show prints one GPU on one line. Place work on HEALTHY; DEGRADED says in its action what is wrong;
// UNKNOWN is not healthy.
func show(what string, gpu *native.Gpu) {
	health := strings.TrimPrefix(gpu.GetStatus().GetHealth().String(), "HEALTH_")
	fmt.Printf("%s %s version=%d health=%s action=%s\n",
		what, gpu.Name, gpu.ResourceVersion, health, gpu.GetStatus().GetRecommendedAction())
}
