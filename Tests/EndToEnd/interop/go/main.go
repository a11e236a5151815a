// The cases of gRPC's interop-test-descriptions.md by grpc-go.
//
// usage: client ADDRESS CASE [ITERATIONS] [CA_FILE]     CASE `list` prints those that there are
package main

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
)

// How a case is told where the server is.
type target struct {
	address    string
	iterations int
	options    []grpc.DialOption
}

// A connection of its own.
func (t target) connect(options ...grpc.DialOption) *grpc.ClientConn {
	soon := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: 200 * time.Millisecond}
	reconnect := grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: time.Second})
	connection, err := grpc.Dial(t.address, append(append(options, reconnect), t.options...)...)
	check(err == nil, "dial: %v", err)
	return connection
}

var cases = map[string]func(target){
	"empty_unary":                 emptyUnary,
	"large_unary":                 largeUnaryCase,
	"client_compressed_unary":     clientCompressedUnary,
	"server_compressed_unary":     serverCompressedUnary,
	"client_streaming":            clientStreaming,
	"server_streaming":            serverStreaming,
	"server_compressed_streaming": serverCompressedStreaming,
	"ping_pong":                   pingPongCase,
	"empty_stream":                emptyStream,
	"custom_metadata":             customMetadata,
	"status_code_and_message":     statusCodeAndMessage,
	"special_status_message":      specialStatusMessage,
	"unimplemented_method":        unimplementedMethod,
	"unimplemented_service":       unimplementedService,
	"cancel_after_begin":          cancelAfterBegin,
	"cancel_after_first_response": cancelAfterFirstResponse,
	"timeout_on_sleeping_server":  timeoutOnSleepingServer,
	"rpc_soak":                    rpcSoak,
	"channel_soak":                channelSoak,
	"concurrent_large_unary":      concurrentLargeUnary,
	"calls_without_end":           callsWithoutEnd,
	"device_create_and_watch":     deviceCreateAndWatch,
	"device_batch":                deviceBatch,
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: client ADDRESS CASE [ITERATIONS] [CA_FILE]")
		os.Exit(2)
	}
	name := os.Args[2]
	if name == "list" {
		names := make([]string, 0, len(cases))
		for known := range cases {
			names = append(names, known)
		}
		sort.Strings(names)
		for _, known := range names {
			fmt.Println(known)
		}
		return
	}
	run, isKnown := cases[name]
	if !isKnown {
		fmt.Fprintln(os.Stderr, "no case", name)
		os.Exit(2)
	}
	t := target{address: os.Args[1], iterations: 10, options: []grpc.DialOption{grpc.WithInsecure()}}
	if len(os.Args) > 3 {
		iterations, err := strconv.Atoi(os.Args[3])
		check(err == nil, "iterations: %v", err)
		t.iterations = iterations
	}
	if len(os.Args) > 4 {
		tls, err := credentials.NewClientTLSFromFile(os.Args[4], "")
		check(err == nil, "%v", err)
		t.options = []grpc.DialOption{grpc.WithTransportCredentials(tls)}
	}
	run(t)
}

// The first thing that is wrong ends the program.
func check(condition bool, format string, arguments ...interface{}) {
	if !condition {
		panic(fmt.Sprintf(format, arguments...))
	}
}
