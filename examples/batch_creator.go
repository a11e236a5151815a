// Creates many devices on one CreateDevices stream, and prints a line for each. Killed in the middle and run again with the
// same batch id it makes one device a name: the same name has the same request id in every run.
//
//	batch_creator 127.0.0.1:50051 demo 100 me
//
// Stubs are made by protoc with --go_out=plugins=grpc (Debian's golang-goprotobuf-dev; Tests/EndToEnd/interop/Makefile
// has the whole command). With newer versions of grpc-go: grpc.NewClient and insecure.NewCredentials.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cloudphone/device/v1"
)

func request(batch, name, user string) *v1.CreateDeviceRequest {
	return &v1.CreateDeviceRequest{
		RequestId: batch + "/" + name, BatchId: batch, Name: name, UserId: user,
		ReturnWhen: v1.ReturnWhen_RETURN_WHEN_FINISHED,
	}
}

// create sends what has no result yet, and calls done for each that has ended. It reads while it writes.
func create(client v1.DeviceServiceClient, requests []*v1.CreateDeviceRequest, done func(*v1.CreateDevicesResult)) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := client.CreateDevices(ctx)
	if err != nil {
		return err
	}
	go func() {
		for _, one := range requests {
			// Whatever keeps it from being sent ends the stream, which Recv tells.
			if stream.Send(one) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	for {
		result, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		// The server is going away, or can't reach its database: nothing has failed.
		if codes.Code(result.GetError().GetCode()) != codes.Unavailable {
			done(result)
		}
	}
}

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: batch_creator ADDRESS BATCH COUNT USER")
	}
	address, batch, user := os.Args[1], os.Args[2], os.Args[4]
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := v1.NewDeviceServiceClient(connection)

	missing := map[string]*v1.CreateDeviceRequest{}
	for number := 1; number <= count; number++ {
		one := request(batch, fmt.Sprintf("%s-%04d", batch, number), user)
		missing[one.RequestId] = one
	}
	made := 0
	for {
		var rest []*v1.CreateDeviceRequest
		for _, one := range missing {
			rest = append(rest, one)
		}
		err := create(client, rest, func(result *v1.CreateDevicesResult) {
			delete(missing, result.RequestId)
			if result.Error == nil {
				made++
				fmt.Println(result.Name, result.SagaId, result.Device.DeviceId)
			} else {
				fmt.Println(result.Name, result.SagaId, codes.Code(result.Error.Code), result.Error.Message)
			}
		})
		if err != nil && status.Code(err) != codes.Unavailable {
			log.Fatal(err)
		}
		if len(missing) == 0 {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	fmt.Println(made, "of", count, "made")
	if made < count {
		os.Exit(1)
	}
}
