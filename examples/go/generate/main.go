// Command generate makes the Go code of both dialects from proto/, without a protoc: protocompile
// parses, protoc-gen-go and protoc-gen-go-grpc (tools of this module) write.
//
//	go -C examples/go/generate run .
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// module is where the code lands; the protos name no Go package of their own.
const module = "github.com/device-api/device-api-server/examples/go"

// packages says which package of the module each proto becomes.
var packages = map[string]string{
	"nvidia/device/v1alpha1/device.proto":   "gen/native",
	"nvidia/device/v1alpha1/incident.proto": "gen/native",
	"nvidia/device/v1alpha1/daemon.proto":   "gen/native",
	"nvidia/device/v1alpha1/nvml.proto":     "gen/native",
	"nvidia/device/v1alpha1/policy.proto":   "gen/native",
	"nvidia/nvsentinel/v1alpha1/gpu.proto":  "gen/upstream",
}

func main() {
	log.SetFlags(0)
	out := flag.String("out", "..", "the folder of the module")
	flag.Parse()
	if err := generate(context.Background(), *out); err != nil {
		log.Fatalf("generate: %v", err)
	}
}

func generate(ctx context.Context, out string) error {
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			ImportPaths: []string{filepath.Join("..", "..", "..", "proto")},
		}),
		// Comments become the documentation of the generated code.
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	var names, mappings []string
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		names = append(names, name)
		mappings = append(mappings, fmt.Sprintf("M%s=%s/%s", name, module, packages[name]))
	}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return err
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      proto.String(strings.Join(append(mappings, "module="+module), ",")),
	}
	seen := map[string]bool{}
	for _, file := range files {
		request.ProtoFile = withImports(request.ProtoFile, seen, file)
	}
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		if err := run(ctx, plugin, request, out); err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
	}
	return nil
}

// withImports appends a file after what it imports, as plugins want it.
func withImports(
	list []*descriptorpb.FileDescriptorProto, seen map[string]bool, file protoreflect.FileDescriptor,
) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return list
	}
	seen[file.Path()] = true
	for i := range file.Imports().Len() {
		list = withImports(list, seen, file.Imports().Get(i).FileDescriptor)
	}
	return append(list, protoutil.ProtoFromFileDescriptor(file))
}

// run hands the request to a plugin and writes what it answers below out.
func run(ctx context.Context, plugin string, request *pluginpb.CodeGeneratorRequest, out string) error {
	input, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "go", "tool", plugin)
	command.Stdin = bytes.NewReader(input)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return fmt.Errorf("%s", response.GetError())
	}
	for _, file := range response.File {
		path := filepath.Join(out, file.GetName())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(file.GetContent()), 0o644); err != nil {
			return err
		}
		fmt.Println(file.GetName())
	}
	return nil
}
