// The cases of gRPC's interop-test-descriptions.md by gRPC C++.

#include <atomic>
#include <chrono>
#include <future>
#include <utility>
#include <vector>

#include "check.h"
#include "interop.grpc.pb.h"

// Of gRPC's C core, exported and not in its headers: how a call's last message came.
uint32_t grpc_call_test_only_get_message_flags(grpc_call* call);

namespace grpc::testing {
// A friend of ClientContext, for the C core's call.
class InteropClientContextInspector {
 public:
  static bool WasCompressed(const ClientContext& context) {
    constexpr uint32_t kWasCompressed = 0x40000000u;  // GRPC_WRITE_INTERNAL_TEST_ONLY_WAS_COMPRESSED
    return (grpc_call_test_only_get_message_flags(context.call_) & kWasCompressed) != 0;
  }
};
}  // namespace grpc::testing

namespace {

using namespace grpc::testing;
using Inspector = InteropClientContextInspector;

constexpr int kRequestSizes[] = {27182, 8, 1828, 45904};
constexpr int kResponseSizes[] = {31415, 9, 2653, 58979};
const std::string kStatusMessage = "test status message";

std::unique_ptr<TestService::Stub> Connect(const Target& target) { return TestService::NewStub(target.connect()); }

void SetZeros(Payload* payload, int size) { payload->set_body(std::string(size, '\0')); }

void CheckPayload(const Payload& payload, int size) {
  CHECK(payload.type() == COMPRESSABLE, "a payload of another type");
  CHECK(payload.body() == std::string(size, '\0'), "not " + std::to_string(size) + " zeros");
}

SimpleRequest LargeRequest() {
  SimpleRequest request;
  request.set_response_size(314159);
  SetZeros(request.mutable_payload(), 271828);
  return request;
}

void LargeUnary(TestService::Stub& stub, grpc::ClientContext& context, const SimpleRequest& request) {
  SimpleResponse response;
  CheckStatus(stub.UnaryCall(&context, request, &response));
  CheckPayload(response.payload(), 314159);
}

void LargeUnary(TestService::Stub& stub) {
  grpc::ClientContext context;
  LargeUnary(stub, context, LargeRequest());
}

StreamingOutputCallRequest OutputRequest(int response_size, int size) {
  StreamingOutputCallRequest request;
  if (response_size > 0) request.add_response_parameters()->set_size(response_size);
  SetZeros(request.mutable_payload(), size);
  return request;
}

template <typename Stream>
void PingPong(Stream& stream, int response_size, int size) {
  CHECK(stream->Write(OutputRequest(response_size, size)), "the stream is over");
  StreamingOutputCallResponse response;
  CHECK(stream->Read(&response), "the stream is over");
  CheckPayload(response.payload(), response_size);
}

void EmptyUnary(const Target& target) {
  grpc::ClientContext context;
  Empty response;
  CheckStatus(Connect(target)->EmptyCall(&context, Empty(), &response));
  CHECK(response.ByteSizeLong() == 0, "not empty");
}

void LargeUnaryCase(const Target& target) { LargeUnary(*Connect(target)); }

void ClientCompressedUnary(const Target& target) {
  auto stub = Connect(target);
  SimpleRequest request = LargeRequest();
  request.mutable_expect_compressed()->set_value(true);
  {
    grpc::ClientContext context;
    SimpleResponse response;
    CheckStatus(stub->UnaryCall(&context, request, &response), grpc::StatusCode::INVALID_ARGUMENT);
  }
  for (auto algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    LargeUnary(*stub, context, request);
  }
  request.mutable_expect_compressed()->set_value(false);
  grpc::ClientContext context;
  LargeUnary(*stub, context, request);
}

void ServerCompressedUnary(const Target& target) {
  auto stub = Connect(target);
  for (bool is_compressed : {true, false}) {
    SimpleRequest request = LargeRequest();
    request.mutable_response_compressed()->set_value(is_compressed);
    grpc::ClientContext context;
    LargeUnary(*stub, context, request);
    CHECK(Inspector::WasCompressed(context) == is_compressed, "the response's flag");
  }
}

void ClientStreaming(const Target& target) {
  auto stub = Connect(target);
  grpc::ClientContext context;
  StreamingInputCallResponse response;
  auto stream = stub->StreamingInputCall(&context, &response);
  for (int size : kRequestSizes) {
    StreamingInputCallRequest request;
    SetZeros(request.mutable_payload(), size);
    CHECK(stream->Write(request), "the stream is over");
  }
  stream->WritesDone();
  CheckStatus(stream->Finish());
  CHECK(response.aggregated_payload_size() == 74922, response.aggregated_payload_size());
}

void ClientCompressedStreaming(const Target& target) {
  auto stub = Connect(target);
  StreamingInputCallRequest first, second;
  first.mutable_expect_compressed()->set_value(true);
  SetZeros(first.mutable_payload(), 27182);
  second.mutable_expect_compressed()->set_value(false);
  SetZeros(second.mutable_payload(), 45904);
  {
    grpc::ClientContext context;
    StreamingInputCallResponse response;
    auto stream = stub->StreamingInputCall(&context, &response);
    stream->Write(first);
    stream->WritesDone();
    CheckStatus(stream->Finish(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  StreamingInputCallResponse response;
  auto stream = stub->StreamingInputCall(&context, &response);
  CHECK(stream->Write(first), "the stream is over");
  CHECK(stream->Write(second, grpc::WriteOptions().set_no_compression()), "the stream is over");
  stream->WritesDone();
  CheckStatus(stream->Finish());
  CHECK(response.aggregated_payload_size() == 73086, response.aggregated_payload_size());
}

void ServerStreaming(const Target& target) {
  auto stub = Connect(target);
  StreamingOutputCallRequest request;
  for (int size : kResponseSizes) request.add_response_parameters()->set_size(size);
  grpc::ClientContext context;
  auto stream = stub->StreamingOutputCall(&context, request);
  StreamingOutputCallResponse response;
  for (int size : kResponseSizes) {
    CHECK(stream->Read(&response), "the stream is over");
    CheckPayload(response.payload(), size);
  }
  CHECK(!stream->Read(&response), "one response too many");
  CheckStatus(stream->Finish());
}

void ServerCompressedStreaming(const Target& target) {
  auto stub = Connect(target);
  const std::pair<int, bool> wanted[] = {{31415, true}, {92653, false}};
  StreamingOutputCallRequest request;
  for (auto [size, is_compressed] : wanted) {
    auto* parameters = request.add_response_parameters();
    parameters->set_size(size);
    parameters->mutable_compressed()->set_value(is_compressed);
  }
  grpc::ClientContext context;
  auto stream = stub->StreamingOutputCall(&context, request);
  StreamingOutputCallResponse response;
  for (auto [size, is_compressed] : wanted) {
    CHECK(stream->Read(&response), "the stream is over");
    CheckPayload(response.payload(), size);
    CHECK(Inspector::WasCompressed(context) == is_compressed, "the response's flag");
  }
  CHECK(!stream->Read(&response), "one response too many");
  CheckStatus(stream->Finish());
}

void PingPongCase(const Target& target) {
  auto stub = Connect(target);
  grpc::ClientContext context;
  auto stream = stub->FullDuplexCall(&context);
  for (int index = 0; index < 4; ++index) PingPong(stream, kResponseSizes[index], kRequestSizes[index]);
  stream->WritesDone();
  StreamingOutputCallResponse response;
  CHECK(!stream->Read(&response), "one response too many");
  CheckStatus(stream->Finish());
}

void EmptyStream(const Target& target) {
  auto stub = Connect(target);
  grpc::ClientContext context;
  auto stream = stub->FullDuplexCall(&context);
  stream->WritesDone();
  StreamingOutputCallResponse response;
  CHECK(!stream->Read(&response), "a response");
  CheckStatus(stream->Finish());
}

void CheckEcho(const grpc::ClientContext& context) {
  const auto& initial = context.GetServerInitialMetadata();
  const auto one = initial.find("x-grpc-test-echo-initial");
  CHECK(one != initial.end() && one->second == "test_initial_metadata_value", "initial metadata");
  const auto& trailing = context.GetServerTrailingMetadata();
  const auto other = trailing.find("x-grpc-test-echo-trailing-bin");
  CHECK(other != trailing.end() && other->second == "\xab\xab\xab", "trailing metadata");
}

void AddEcho(grpc::ClientContext& context) {
  context.AddMetadata("x-grpc-test-echo-initial", "test_initial_metadata_value");
  context.AddMetadata("x-grpc-test-echo-trailing-bin", "\xab\xab\xab");
}

void CustomMetadata(const Target& target) {
  auto stub = Connect(target);
  {
    grpc::ClientContext context;
    AddEcho(context);
    LargeUnary(*stub, context, LargeRequest());
    CheckEcho(context);
  }
  grpc::ClientContext context;
  AddEcho(context);
  auto stream = stub->FullDuplexCall(&context);
  PingPong(stream, 314159, 271828);
  stream->WritesDone();
  CheckStatus(stream->Finish());
  CheckEcho(context);
}

void StatusCodeAndMessage(const Target& target) {
  auto stub = Connect(target);
  {
    SimpleRequest request;
    request.mutable_response_status()->set_code(2);
    request.mutable_response_status()->set_message(kStatusMessage);
    grpc::ClientContext context;
    SimpleResponse response;
    const auto status = stub->UnaryCall(&context, request, &response);
    CheckStatus(status, grpc::StatusCode::UNKNOWN);
    CHECK(status.error_message() == kStatusMessage, status.error_message());
  }
  StreamingOutputCallRequest request;
  request.mutable_response_status()->set_code(2);
  request.mutable_response_status()->set_message(kStatusMessage);
  grpc::ClientContext context;
  auto stream = stub->FullDuplexCall(&context);
  stream->Write(request);
  stream->WritesDone();
  StreamingOutputCallResponse response;
  CHECK(!stream->Read(&response), "a response");
  const auto status = stream->Finish();
  CheckStatus(status, grpc::StatusCode::UNKNOWN);
  CHECK(status.error_message() == kStatusMessage, status.error_message());
}

void SpecialStatusMessage(const Target& target) {
  const std::string message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
  SimpleRequest request;
  request.mutable_response_status()->set_code(2);
  request.mutable_response_status()->set_message(message);
  grpc::ClientContext context;
  SimpleResponse response;
  const auto status = Connect(target)->UnaryCall(&context, request, &response);
  CheckStatus(status, grpc::StatusCode::UNKNOWN);
  CHECK(status.error_message() == message, status.error_message());
}

void UnimplementedMethod(const Target& target) {
  grpc::ClientContext context;
  Empty response;
  CheckStatus(Connect(target)->UnimplementedCall(&context, Empty(), &response), grpc::StatusCode::UNIMPLEMENTED);
}

void UnimplementedServiceCase(const Target& target) {
  auto stub = UnimplementedService::NewStub(target.connect());
  grpc::ClientContext context;
  Empty response;
  CheckStatus(stub->UnimplementedCall(&context, Empty(), &response), grpc::StatusCode::UNIMPLEMENTED);
}

void CancelAfterBegin(const Target& target) {
  auto stub = Connect(target);
  grpc::ClientContext context;
  StreamingInputCallResponse response;
  auto stream = stub->StreamingInputCall(&context, &response);
  context.TryCancel();
  CheckStatus(stream->Finish(), grpc::StatusCode::CANCELLED);
}

void CancelAfterFirstResponse(const Target& target) {
  auto stub = Connect(target);
  {
    grpc::ClientContext context;
    auto stream = stub->FullDuplexCall(&context);
    PingPong(stream, 31415, 27182);
    context.TryCancel();
    CheckStatus(stream->Finish(), grpc::StatusCode::CANCELLED);
  }
  LargeUnary(*stub);  // the connection lives on
}

void TimeoutOnSleepingServer(const Target& target) {
  auto stub = Connect(target);
  LargeUnary(*stub);  // the connection stands
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1));
  auto stream = stub->FullDuplexCall(&context);
  stream->Write(OutputRequest(0, 27182));
  CheckStatus(stream->Finish(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

void RPCSoak(const Target& target) {
  auto stub = Connect(target);
  for (int index = 0; index < target.iterations; ++index) LargeUnary(*stub);
}

void ChannelSoak(const Target& target) {
  for (int index = 0; index < target.iterations; ++index) LargeUnary(*Connect(target));
}

void ConcurrentLargeUnary(const Target& target) {
  auto stub = Connect(target);
  std::vector<std::future<void>> calls;
  for (int index = 0; index < target.iterations; ++index) {
    calls.push_back(std::async(std::launch::async, [&] { LargeUnary(*stub); }));
  }
  for (auto& call : calls) call.get();
}

// Calls, several at a time, and a line for each hundred of them. None may fail, whatever the server goes through.
void CallsWithoutEnd(const Target& target) {
  auto stub = Connect(target);
  std::atomic<int> calls{0};
  std::vector<std::future<void>> callers;
  for (int index = 0; index < 4; ++index) {
    callers.push_back(std::async(std::launch::async, [&] {
      while (true) {
        SimpleRequest request;
        request.set_response_size(1000);
        grpc::ClientContext context;
        context.set_wait_for_ready(true);
        SimpleResponse response;
        CheckStatus(stub->UnaryCall(&context, request, &response));
        CheckPayload(response.payload(), 1000);
        if (++calls % 100 == 0) std::cout << "hundred" << std::endl;
      }
    }));
  }
}

}  // namespace

const Cases interop_cases = {
    {"empty_unary", EmptyUnary},
    {"large_unary", LargeUnaryCase},
    {"client_compressed_unary", ClientCompressedUnary},
    {"server_compressed_unary", ServerCompressedUnary},
    {"client_streaming", ClientStreaming},
    {"client_compressed_streaming", ClientCompressedStreaming},
    {"server_streaming", ServerStreaming},
    {"server_compressed_streaming", ServerCompressedStreaming},
    {"ping_pong", PingPongCase},
    {"empty_stream", EmptyStream},
    {"custom_metadata", CustomMetadata},
    {"status_code_and_message", StatusCodeAndMessage},
    {"special_status_message", SpecialStatusMessage},
    {"unimplemented_method", UnimplementedMethod},
    {"unimplemented_service", UnimplementedServiceCase},
    {"cancel_after_begin", CancelAfterBegin},
    {"cancel_after_first_response", CancelAfterFirstResponse},
    {"timeout_on_sleeping_server", TimeoutOnSleepingServer},
    {"rpc_soak", RPCSoak},
    {"channel_soak", ChannelSoak},
    {"concurrent_large_unary", ConcurrentLargeUnary},
    {"calls_without_end", CallsWithoutEnd},
};
