// CreateDevice, WatchSaga and GetSaga of the real service.

#include <chrono>

#include "check.h"
#include "cloudphone/device/v1/device_service.grpc.pb.h"

namespace {

using namespace cloudphone::device::v1;

// A context with a deadline, for one call.
struct Context : grpc::ClientContext {
  Context() { set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30)); }
};

void CreateAndWatch(const Target& target) {
  auto stub = DeviceService::NewStub(target.connect());

  CreateDeviceRequest request;
  request.set_name("made by c++");
  request.set_user_id("cpp");
  request.set_return_when(RETURN_WHEN_ACCEPTED);
  CreateDeviceResponse accepted;
  {
    Context context;
    CheckStatus(stub->CreateDevice(&context, request, &accepted));
  }

  SagaEvent event;
  uint32_t sequence = 0;
  {
    WatchSagaRequest watch;
    watch.set_saga_id(accepted.saga_id());
    Context context;
    auto events = stub->WatchSaga(&context, watch);
    while (events->Read(&event)) {
      CHECK(event.sequence() == ++sequence, event.ShortDebugString());
      if (sequence == 1) CHECK(event.type() == SAGA_EVENT_TYPE_SAGA_STARTED, event.ShortDebugString());
    }
    CheckStatus(events->Finish());
    CHECK(event.type() == SAGA_EVENT_TYPE_SAGA_COMPLETED, event.ShortDebugString());
  }

  GetSagaRequest get_saga;
  get_saga.set_saga_id(accepted.saga_id());
  Saga saga;
  {
    Context context;
    CheckStatus(stub->GetSaga(&context, get_saga, &saga));
  }
  CHECK(saga.status() == SAGA_STATUS_COMPLETED && saga.step_index() == 4 && saga.current_step() == "START_DEVICE" &&
            saga.last_sequence() == sequence,
        saga.ShortDebugString());

  GetDeviceRequest get_device;
  get_device.set_device_id(accepted.device().device_id());
  Device device;
  {
    Context context;
    CheckStatus(stub->GetDevice(&context, get_device, &device));
  }
  CHECK(device.status() == DEVICE_STATUS_RUNNING && device.connection().adb_port() != 0, device.ShortDebugString());
}

}  // namespace

const Cases device_cases = {{"device_create_and_watch", CreateAndWatch}};
