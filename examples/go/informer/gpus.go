package main

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/device-api/device-api-server/examples/go/gen/upstream"
	"github.com/device-api/device-api-server/examples/go/internal/dial"
)

// Gpu is a GPU as Kubernetes' libraries want an object to be.
type Gpu struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	Spec   *upstream.GpuSpec
	Status *upstream.GpuStatus
}

// DeepCopyObject implements runtime.Object.
func (g *Gpu) DeepCopyObject() runtime.Object {
	out := &Gpu{TypeMeta: g.TypeMeta, Spec: proto.CloneOf(g.Spec), Status: proto.CloneOf(g.Status)}
	g.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return out
}

// GpuList is a list of them.
type GpuList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []Gpu
}

// DeepCopyObject implements runtime.Object.
func (l *GpuList) DeepCopyObject() runtime.Object {
	out := &GpuList{TypeMeta: l.TypeMeta, Items: make([]Gpu, len(l.Items))}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*Gpu)
	}
	return out
}

func object(gpu *upstream.Gpu) *Gpu {
	meta := gpu.GetMetadata()
	return &Gpu{
		ObjectMeta: metav1.ObjectMeta{
			Name:              meta.GetName(),
			Namespace:         meta.GetNamespace(),
			ResourceVersion:   meta.GetResourceVersion(),
			UID:               types.UID(meta.GetUid()),
			Generation:        meta.GetGeneration(),
			CreationTimestamp: metav1.NewTime(meta.GetCreationTimestamp().AsTime()),
		},
		Spec:   gpu.GetSpec(),
		Status: gpu.GetStatus(),
	}
}

// gpus is a cache.ListerWatcherWithContext.
//
// A client of one's own would say `IsWatchListSemanticsUnSupported() bool { return true }` here, and
// need no environment variable. NVSentinel's generated one does not, and this stands for it.
type gpus struct {
	client upstream.GpuServiceClient
}

func (g *gpus) List(options metav1.ListOptions) (runtime.Object, error) {
	return g.ListWithContext(context.Background(), options)
}

func (g *gpus) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return g.WatchWithContext(context.Background(), options)
}

func (g *gpus) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, dial.CallTimeout)
	defer cancel()
	fmt.Printf("LIST asked=%q\n", options.ResourceVersion)
	answer, err := g.client.ListGpus(ctx, &upstream.ListGpusRequest{
		Opts: &upstream.ListOptions{ResourceVersion: options.ResourceVersion},
	})
	if err != nil {
		return nil, err
	}
	list := &GpuList{ListMeta: metav1.ListMeta{
		ResourceVersion: answer.GetGpuList().GetMetadata().GetResourceVersion(),
	}}
	for _, gpu := range answer.GetGpuList().GetItems() {
		list.Items = append(list.Items, *object(gpu))
	}
	return list, nil
}

func (g *gpus) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	ctx, cancel := context.WithCancel(ctx)
	fmt.Printf("WATCH after=%q\n", options.ResourceVersion)
	stream, err := g.client.WatchGpus(ctx, &upstream.WatchGpusRequest{
		Opts: &upstream.ListOptions{ResourceVersion: options.ResourceVersion},
	})
	if err != nil {
		cancel()
		return nil, err
	}
	events := &events{cancel: cancel, result: make(chan watch.Event)}
	go events.run(ctx, stream)
	return events, nil
}

// events is a watch.Interface over a stream.
type events struct {
	cancel context.CancelFunc
	result chan watch.Event
}

func (e *events) Stop()                          { e.cancel() }
func (e *events) ResultChan() <-chan watch.Event { return e.result }

func (e *events) run(ctx context.Context, stream upstream.GpuService_WatchGpusClient) {
	defer e.cancel()
	defer close(e.result)
	for {
		event, err := stream.Recv()
		if err != nil {
			log.Print(err)
			if status.Code(err) == codes.OutOfRange {
				fmt.Println("EXPIRED")
				e.send(ctx, watch.Event{Type: watch.Error, Object: &metav1.Status{
					Status: metav1.StatusFailure, Code: http.StatusGone,
					Reason: metav1.StatusReasonExpired, Message: err.Error(),
				}})
			}
			return
		}
		kind := watch.EventType(event.GetType())
		switch kind {
		case watch.Added, watch.Modified, watch.Deleted:
			fmt.Printf("EVENT %s %s\n", kind, event.GetObject().GetMetadata().GetName())
			if !e.send(ctx, watch.Event{Type: kind, Object: object(event.GetObject())}) {
				return
			}
		}
	}
}

// send hands an event on, unless the informer has stopped the watch.
func (e *events) send(ctx context.Context, event watch.Event) bool {
	select {
	case e.result <- event:
		return true
	case <-ctx.Done():
		return false
	}
}
