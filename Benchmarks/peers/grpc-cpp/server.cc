// gRPC C++, callback API, on 127.0.0.1. usage: server PORT [CERTIFICATE KEY]
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <sstream>
#include <string>

#include "bench.grpc.pb.h"

namespace {

// Writes one message over and over.
class Streamer final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
public:
    Streamer(uint32_t count, uint32_t size) : left_(count) {
        grpc::Slice slice(std::string(size, '\0'));
        message_ = grpc::ByteBuffer(&slice, 1);
        Next();
    }
    void OnWriteDone(bool ok) override {
        if (ok) Next(); else Finish(grpc::Status(grpc::StatusCode::CANCELLED, ""));
    }
    void OnDone() override { delete this; }

private:
    void Next() {
        if (left_ == 0) return Finish(grpc::Status::OK);
        left_--;
        StartWrite(&message_);
    }
    uint32_t left_;
    grpc::ByteBuffer message_;
};

// Echo and Stream take and give bytes as they are, like the other servers here; Get decodes and encodes.
using Base = bench::Bench::WithRawCallbackMethod_Echo<
    bench::Bench::WithRawCallbackMethod_Stream<bench::Bench::WithCallbackMethod_Get<bench::Bench::Service>>>;

class Service final : public Base {
    grpc::ServerUnaryReactor* Get(
        grpc::CallbackServerContext* context, const bench::Payload* request, bench::Payload* reply) override {
        reply->set_data(request->data());
        auto* reactor = context->DefaultReactor();
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }
    grpc::ServerUnaryReactor* Echo(
        grpc::CallbackServerContext* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override {
        *reply = *request;
        auto* reactor = context->DefaultReactor();
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }
    grpc::ServerWriteReactor<grpc::ByteBuffer>* Stream(
        grpc::CallbackServerContext*, const grpc::ByteBuffer* bytes) override {
        grpc::Slice slice;
        bench::StreamRequest request;
        if (!bytes->DumpToSingleSlice(&slice).ok() || !request.ParseFromArray(slice.begin(), slice.size()))
            return new Streamer(0, 0);
        return new Streamer(request.count(), request.size());
    }
};

std::string contents(const char* name) {
    std::ifstream file(name);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2 && argc != 4) return 2;
    auto credentials = grpc::InsecureServerCredentials();
    if (argc == 4) {
        grpc::SslServerCredentialsOptions options;
        options.pem_key_cert_pairs.push_back({contents(argv[3]), contents(argv[2])});
        credentials = grpc::SslServerCredentials(options);
    }
    Service service;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::string(argv[1]), credentials);
    builder.RegisterService(&service);
    auto server = builder.BuildAndStart();
    if (!server) return 1;
    server->Wait();
}
