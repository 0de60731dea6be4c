// Command informer runs client-go's own informer on the upstream dialect, the way NVSentinel's
// generated clients do: a ListerWatcher that hands on resource versions, and drops what this dialect has
// no field for (sendInitialEvents, allowWatchBookmarks).
//
// Kubernetes 0.35 turns the WatchList feature on by default. An informer then waits for a bookmark that
// this dialect can't carry, and never syncs; KUBE_FEATURE_WatchListClient=false makes it list and watch.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/device-api/device-api-server/examples/go/gen/upstream"
	"github.com/device-api/device-api-server/examples/go/internal/dial"
)

func main() {
	log.SetFlags(0)
	target := flag.String("target", dial.Target(), "where the daemon listens")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	connection, err := dial.Connect(*target)
	if err != nil {
		log.Fatalf("connecting to %s: %v", *target, err)
	}
	defer connection.Close()

	source := &gpus{client: upstream.NewGpuServiceClient(connection)}
	informer := cache.NewSharedIndexInformer(source, &Gpu{}, 0, cache.Indexers{})
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { show("ADD", object) },
		UpdateFunc: func(_, object any) { show("UPDATE", object) },
		DeleteFunc: func(object any) { show("DELETE", object) },
	}); err != nil {
		log.Fatal(err)
	}
	go informer.RunWithContext(ctx)
	if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		fmt.Printf("SYNCED gpus=%d\n", len(informer.GetStore().List()))
	}
	<-ctx.Done()
}

// show prints one object, as the handler got it.
func show(what string, object any) {
	if gone, is := object.(cache.DeletedFinalStateUnknown); is {
		// A list showed that it has gone; when, nobody saw.
		object = gone.Obj
	}
	gpu, is := object.(*Gpu)
	if !is {
		log.Printf("%s of a %T", what, object)
		return
	}
	fmt.Printf("%s %s version=%s ready=%s\n", what, gpu.Name, gpu.ResourceVersion, gpu.ready())
}

// ready is the derived condition's status.
func (g *Gpu) ready() metav1.ConditionStatus {
	for _, condition := range g.Status.GetConditions() {
		if condition.GetType() == "Ready" {
			return metav1.ConditionStatus(condition.GetStatus())
		}
	}
	return metav1.ConditionUnknown
}
