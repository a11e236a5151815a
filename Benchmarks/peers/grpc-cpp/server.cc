// gRPC C++, callback API: a unary echo on 127.0.0.1. usage: server PORT
#include <grpcpp/grpcpp.h>

#include <string>

#include "bench.grpc.pb.h"

namespace {

class Echo final : public bench::Bench::CallbackService {
    grpc::ServerUnaryReactor* Get(
        grpc::CallbackServerContext* context, const bench::Payload* request, bench::Payload* reply) override {
        reply->set_data(request->data());
        auto* reactor = context->DefaultReactor();
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    Echo echo;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::string(argv[1]), grpc::InsecureServerCredentials());
    builder.RegisterService(&echo);
    auto server = builder.BuildAndStart();
    if (!server) return 1;
    server->Wait();
}
