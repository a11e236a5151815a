// usage: client ADDRESS CASE [ITERATIONS] [CA_FILE]     CASE `list` prints those that there are

#include <fstream>
#include <iterator>

#include "check.h"

int main(int count, char** arguments) {
  if (count < 3) {
    std::cerr << "usage: client ADDRESS CASE [ITERATIONS] [CA_FILE]" << std::endl;
    return 2;
  }
  const std::string address = arguments[1], name = arguments[2], ca_file = count > 4 ? arguments[4] : "";
  Cases cases = interop_cases;
  cases.insert(device_cases.begin(), device_cases.end());
  if (name == "list") {
    for (const auto& [known, run] : cases) std::cout << known << "\n";
    return 0;
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (!ca_file.empty()) {
    std::ifstream file(ca_file);
    grpc::SslCredentialsOptions options;
    options.pem_root_certs.assign(std::istreambuf_iterator<char>(file), {});
    credentials = grpc::SslCredentials(options);
  }
  const Target target{
      [&] {
        grpc::ChannelArguments settings;
        settings.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
        settings.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
        settings.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
        return grpc::CreateCustomChannel(address, credentials, settings);
      },
      count > 3 ? std::stoi(arguments[3]) : 10,
  };
  const auto found = cases.find(name);
  if (found == cases.end()) {
    std::cerr << "no case " << name << std::endl;
    return 2;
  }
  found->second(target);
  return 0;
}
