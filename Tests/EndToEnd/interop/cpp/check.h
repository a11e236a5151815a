// What the cases are checked with: the first thing that is wrong ends the program.

#pragma once

#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>

#include <grpcpp/grpcpp.h>

#define CHECK(condition, text)                                                                      \
  do {                                                                                              \
    if (!(condition)) {                                                                             \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " #condition ": " << (text) << std::endl;      \
      std::exit(1);                                                                                 \
    }                                                                                               \
  } while (false)

inline void CheckStatus(const grpc::Status& status, grpc::StatusCode expected = grpc::StatusCode::OK) {
  CHECK(status.error_code() == expected,
        "status " + std::to_string(status.error_code()) + " " + status.error_message());
}

// How a case is told where the server is.
struct Target {
  std::function<std::shared_ptr<grpc::Channel>()> connect;  // a connection of its own
  int iterations;
};

using Cases = std::map<std::string, void (*)(const Target&)>;

extern const Cases interop_cases;
extern const Cases device_cases;
