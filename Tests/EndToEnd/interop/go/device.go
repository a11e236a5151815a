package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc/codes"

	"cloudphone/device/v1"
)

// CreateDevice, WatchSaga and GetSaga of the real service.
func deviceCreateAndWatch(t target) {
	stub := v1.NewDeviceServiceClient(t.connect())
	accepted, err := stub.CreateDevice(bounded(), &v1.CreateDeviceRequest{
		Name: "made by go", UserId: "go", ReturnWhen: v1.ReturnWhen_RETURN_WHEN_ACCEPTED,
	})
	checkCode(err, codes.OK)

	events, err := stub.WatchSaga(bounded(), &v1.WatchSagaRequest{SagaId: accepted.SagaId})
	checkCode(err, codes.OK)
	var last *v1.SagaEvent
	sequence := uint32(0)
	for {
		event, err := events.Recv()
		if err == io.EOF {
			break
		}
		checkCode(err, codes.OK)
		sequence++
		check(event.Sequence == sequence, "event %v", event)
		check(sequence != 1 || event.Type == v1.SagaEventType_SAGA_EVENT_TYPE_SAGA_STARTED, "event %v", event)
		last = event
	}
	check(last.GetType() == v1.SagaEventType_SAGA_EVENT_TYPE_SAGA_COMPLETED, "event %v", last)

	saga, err := stub.GetSaga(bounded(), &v1.GetSagaRequest{SagaId: accepted.SagaId})
	checkCode(err, codes.OK)
	check(saga.Status == v1.SagaStatus_SAGA_STATUS_COMPLETED && saga.StepIndex == 4 &&
		saga.CurrentStep == "START_DEVICE" && saga.LastSequence == sequence, "saga %v", saga)

	device, err := stub.GetDevice(bounded(), &v1.GetDeviceRequest{DeviceId: accepted.Device.DeviceId})
	checkCode(err, codes.OK)
	check(device.Status == v1.DeviceStatus_DEVICE_STATUS_RUNNING && device.Connection.GetAdbPort() != 0,
		"device %v", device)
}

// As many creations as iterations on one stream, a third of them wrong (interop/batch.py says how); each has one result.
func deviceBatch(t target) {
	batch := os.Getenv("DEVICE_BATCH")
	stream, err := v1.NewDeviceServiceClient(t.connect()).CreateDevices(context.Background())
	checkCode(err, codes.OK)
	go func() {
		for number := 1; number <= t.iterations; number++ {
			request := &v1.CreateDeviceRequest{
				RequestId: fmt.Sprintf("%s-%d", batch, number), BatchId: batch, UserId: "user-1",
				Name: fmt.Sprintf("%s %d", batch, number), ReturnWhen: v1.ReturnWhen_RETURN_WHEN_FINISHED,
			}
			switch number % 9 {
			case 3:
				request.Name = ""
			case 6:
				request.RequestId = ""
			case 0:
				request.ProviderOptions = map[string]string{"fail": "create:refused"}
			}
			if stream.Send(request) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	seen := map[uint32]bool{}
	for {
		result, err := stream.Recv()
		if err == io.EOF {
			break
		}
		checkCode(err, codes.OK)
		check(!seen[result.Index], "two results: %v", result)
		seen[result.Index] = true
		wanted := codes.OK
		if result.Index%3 == 0 {
			wanted = codes.InvalidArgument
		}
		check(codes.Code(result.Error.GetCode()) == wanted, "result %v", result)
		check((result.Device != nil) == (wanted == codes.OK), "result %v", result)
		check((result.SagaId != "") == (wanted == codes.OK || result.Index%9 == 0), "result %v", result)
	}
	check(len(seen) == t.iterations, "%d results", len(seen))
}
