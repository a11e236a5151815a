package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	pb "interop"
)

var (
	requestSizes  = []int{27182, 8, 1828, 45904}
	responseSizes = []int{31415, 9, 2653, 58979}
)

const statusMessage = "test status message"

// A bound on every call that has no deadline of its own.
func bounded() context.Context {
	ctx, _ := context.WithTimeout(context.Background(), 30*time.Second) //nolint:govet // the program ends with the case
	return ctx
}

func (t target) stub(options ...grpc.DialOption) pb.TestServiceClient {
	return pb.NewTestServiceClient(t.connect(options...))
}

func zeros(size int) *pb.Payload { return &pb.Payload{Body: make([]byte, size)} }

func checkPayload(payload *pb.Payload, size int) {
	check(payload.GetType() == pb.PayloadType_COMPRESSABLE, "a payload of another type")
	check(bytes.Equal(payload.GetBody(), make([]byte, size)), "%d bytes, not %d zeros", len(payload.GetBody()), size)
}

func checkCode(err error, expected codes.Code) {
	check(status.Code(err) == expected, "%v, not %v", err, expected)
}

func largeRequest() *pb.SimpleRequest {
	return &pb.SimpleRequest{ResponseSize: 314159, Payload: zeros(271828)}
}

func largeUnary(stub pb.TestServiceClient, request *pb.SimpleRequest, options ...grpc.CallOption) {
	response, err := stub.UnaryCall(bounded(), request, options...)
	checkCode(err, codes.OK)
	checkPayload(response.GetPayload(), 314159)
}

func outputRequest(responseSize, size int) *pb.StreamingOutputCallRequest {
	request := &pb.StreamingOutputCallRequest{Payload: zeros(size)}
	if responseSize > 0 {
		request.ResponseParameters = []*pb.ResponseParameters{{Size: int32(responseSize)}}
	}
	return request
}

func pingPong(stream pb.TestService_FullDuplexCallClient, responseSize, size int) {
	checkCode(stream.Send(outputRequest(responseSize, size)), codes.OK)
	response, err := stream.Recv()
	checkCode(err, codes.OK)
	checkPayload(response.GetPayload(), responseSize)
}

func checkEnd(stream pb.TestService_FullDuplexCallClient) {
	checkCode(stream.CloseSend(), codes.OK)
	_, err := stream.Recv()
	check(err == io.EOF, "%v, not the stream's end", err)
}

func emptyUnary(t target) {
	response, err := t.stub().EmptyCall(bounded(), &pb.Empty{})
	checkCode(err, codes.OK)
	check(response.String() == "", "not empty")
}

func largeUnaryCase(t target) { largeUnary(t.stub(), largeRequest()) }

func clientCompressedUnary(t target) {
	stub := t.stub()
	request := largeRequest()
	request.ExpectCompressed = &pb.BoolValue{Value: true}
	_, err := stub.UnaryCall(bounded(), request)
	checkCode(err, codes.InvalidArgument)
	largeUnary(stub, request, grpc.UseCompressor(gzip.Name))
	request.ExpectCompressed = &pb.BoolValue{Value: false}
	largeUnary(stub, request)
}

// This release says that it takes gzip only in a call that it compresses itself.
var acceptingGzip = grpc.UseCompressor(gzip.Name)

// Tells of each message whether it came compressed: that is when it was shorter on the wire.
type compressionWatch struct {
	lock  sync.Mutex
	flags []bool
}

func (w *compressionWatch) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return ctx
}
func (w *compressionWatch) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return ctx
}
func (w *compressionWatch) HandleConn(context.Context, stats.ConnStats) {}

func (w *compressionWatch) HandleRPC(_ context.Context, event stats.RPCStats) {
	if payload, is := event.(*stats.InPayload); is {
		w.lock.Lock()
		defer w.lock.Unlock()
		w.flags = append(w.flags, payload.WireLength < payload.Length)
	}
}

func (w *compressionWatch) check(expected ...bool) {
	w.lock.Lock()
	defer w.lock.Unlock()
	check(len(w.flags) == len(expected), "%d messages, not %d", len(w.flags), len(expected))
	for index, flag := range expected {
		check(w.flags[index] == flag, "message %d compressed: %v", index, w.flags[index])
	}
}

func serverCompressedUnary(t target) {
	watch := &compressionWatch{}
	stub := t.stub(grpc.WithStatsHandler(watch))
	for _, isCompressed := range []bool{true, false} {
		request := largeRequest()
		request.ResponseCompressed = &pb.BoolValue{Value: isCompressed}
		largeUnary(stub, request, acceptingGzip)
	}
	watch.check(true, false)
}

func clientStreaming(t target) {
	stream, err := t.stub().StreamingInputCall(bounded())
	checkCode(err, codes.OK)
	for _, size := range requestSizes {
		checkCode(stream.Send(&pb.StreamingInputCallRequest{Payload: zeros(size)}), codes.OK)
	}
	response, err := stream.CloseAndRecv()
	checkCode(err, codes.OK)
	check(response.GetAggregatedPayloadSize() == 74922, "%d", response.GetAggregatedPayloadSize())
}

func serverStreaming(t target) {
	request := &pb.StreamingOutputCallRequest{}
	for _, size := range responseSizes {
		request.ResponseParameters = append(request.ResponseParameters, &pb.ResponseParameters{Size: int32(size)})
	}
	outputCall(t.stub(), request, responseSizes)
}

func outputCall(
	stub pb.TestServiceClient, request *pb.StreamingOutputCallRequest, sizes []int, options ...grpc.CallOption,
) {
	stream, err := stub.StreamingOutputCall(bounded(), request, options...)
	checkCode(err, codes.OK)
	for _, size := range sizes {
		response, err := stream.Recv()
		checkCode(err, codes.OK)
		checkPayload(response.GetPayload(), size)
	}
	_, err = stream.Recv()
	check(err == io.EOF, "%v, not the stream's end", err)
}

func serverCompressedStreaming(t target) {
	watch := &compressionWatch{}
	request := &pb.StreamingOutputCallRequest{ResponseParameters: []*pb.ResponseParameters{
		{Size: 31415, Compressed: &pb.BoolValue{Value: true}}, {Size: 92653, Compressed: &pb.BoolValue{Value: false}},
	}}
	outputCall(t.stub(grpc.WithStatsHandler(watch)), request, []int{31415, 92653}, acceptingGzip)
	watch.check(true, false)
}

func pingPongCase(t target) {
	stream, err := t.stub().FullDuplexCall(bounded())
	checkCode(err, codes.OK)
	for index := range requestSizes {
		pingPong(stream, responseSizes[index], requestSizes[index])
	}
	checkEnd(stream)
}

func emptyStream(t target) {
	stream, err := t.stub().FullDuplexCall(bounded())
	checkCode(err, codes.OK)
	checkEnd(stream)
}

func customMetadata(t target) {
	stub := t.stub()
	ctx := metadata.AppendToOutgoingContext(bounded(),
		"x-grpc-test-echo-initial", "test_initial_metadata_value", "x-grpc-test-echo-trailing-bin", "\xab\xab\xab")
	checkEcho := func(header, trailer metadata.MD) {
		initial, trailing := header.Get("x-grpc-test-echo-initial"), trailer.Get("x-grpc-test-echo-trailing-bin")
		check(len(initial) == 1 && initial[0] == "test_initial_metadata_value", "initial metadata %v", header)
		check(len(trailing) == 1 && trailing[0] == "\xab\xab\xab", "trailing metadata %v", trailer)
	}
	var header, trailer metadata.MD
	response, err := stub.UnaryCall(ctx, largeRequest(), grpc.Header(&header), grpc.Trailer(&trailer))
	checkCode(err, codes.OK)
	checkPayload(response.GetPayload(), 314159)
	checkEcho(header, trailer)

	stream, err := stub.FullDuplexCall(ctx)
	checkCode(err, codes.OK)
	pingPong(stream, 314159, 271828)
	checkEnd(stream)
	header, err = stream.Header()
	checkCode(err, codes.OK)
	checkEcho(header, stream.Trailer())
}

func checkStatus(err error, message string) {
	answer := status.Convert(err)
	check(answer.Code() == codes.Unknown && answer.Message() == message, "%v", err)
}

func statusCodeAndMessage(t target) {
	stub := t.stub()
	wanted := &pb.EchoStatus{Code: 2, Message: statusMessage}
	_, err := stub.UnaryCall(bounded(), &pb.SimpleRequest{ResponseStatus: wanted})
	checkStatus(err, statusMessage)
	stream, err := stub.FullDuplexCall(bounded())
	checkCode(err, codes.OK)
	checkCode(stream.Send(&pb.StreamingOutputCallRequest{ResponseStatus: wanted}), codes.OK)
	checkCode(stream.CloseSend(), codes.OK)
	_, err = stream.Recv()
	checkStatus(err, statusMessage)
}

func specialStatusMessage(t target) {
	message := "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
	wanted := &pb.EchoStatus{Code: 2, Message: message}
	_, err := t.stub().UnaryCall(bounded(), &pb.SimpleRequest{ResponseStatus: wanted})
	checkStatus(err, message)
}

func unimplementedMethod(t target) {
	_, err := t.stub().UnimplementedCall(bounded(), &pb.Empty{})
	checkCode(err, codes.Unimplemented)
}

func unimplementedService(t target) {
	_, err := pb.NewUnimplementedServiceClient(t.connect()).UnimplementedCall(bounded(), &pb.Empty{})
	checkCode(err, codes.Unimplemented)
}

func cancelAfterBegin(t target) {
	ctx, cancel := context.WithCancel(bounded())
	stream, err := t.stub().StreamingInputCall(ctx)
	checkCode(err, codes.OK)
	cancel()
	_, err = stream.CloseAndRecv()
	checkCode(err, codes.Canceled)
}

func cancelAfterFirstResponse(t target) {
	stub := t.stub()
	ctx, cancel := context.WithCancel(bounded())
	stream, err := stub.FullDuplexCall(ctx)
	checkCode(err, codes.OK)
	pingPong(stream, 31415, 27182)
	cancel()
	_, err = stream.Recv()
	checkCode(err, codes.Canceled)
	largeUnary(stub, largeRequest()) // the connection lives on
}

func timeoutOnSleepingServer(t target) {
	stub := t.stub()
	largeUnary(stub, largeRequest()) // the connection stands
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	stream, err := stub.FullDuplexCall(ctx)
	if err != nil {
		checkCode(err, codes.DeadlineExceeded)
		return
	}
	_ = stream.Send(outputRequest(0, 27182)) // the deadline may come first
	_, err = stream.Recv()
	checkCode(err, codes.DeadlineExceeded)
}

func rpcSoak(t target) {
	stub := t.stub()
	for index := 0; index < t.iterations; index++ {
		largeUnary(stub, largeRequest())
	}
}

func channelSoak(t target) {
	for index := 0; index < t.iterations; index++ {
		connection := t.connect()
		largeUnary(pb.NewTestServiceClient(connection), largeRequest())
		connection.Close()
	}
}

func concurrentLargeUnary(t target) {
	stub := t.stub()
	var calls sync.WaitGroup
	for index := 0; index < t.iterations; index++ {
		calls.Add(1)
		go func() {
			defer calls.Done()
			largeUnary(stub, largeRequest())
		}()
	}
	calls.Wait()
}

// Calls, several at a time, and a line for each hundred of them. None may fail, whatever the server goes through.
func callsWithoutEnd(t target) {
	stub := t.stub()
	var calls int32
	for index := 0; index < 4; index++ {
		go func() {
			for {
				request := &pb.SimpleRequest{ResponseSize: 1000}
				response, err := stub.UnaryCall(bounded(), request, grpc.WaitForReady(true))
				checkCode(err, codes.OK)
				checkPayload(response.GetPayload(), 1000)
				if atomic.AddInt32(&calls, 1)%100 == 0 {
					fmt.Println("hundred")
				}
			}
		}()
	}
	select {}
}
