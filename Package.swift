// swift-tools-version: 6.2
import PackageDescription

/// One settings constant for every target of ours: Swift 6 mode (complete concurrency checking) and no warnings.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),  // SE-0335
    .enableUpcomingFeature("InternalImportsByDefault"),  // SE-0409
    .enableUpcomingFeature("MemberImportVisibility"),  // SE-0444
    .define("FAULT_POINTS", .when(configuration: .debug)),  // kill points of the crash matrix: test builds only
]

let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioTLS: Target.Dependency = .product(name: "NIOTLS", package: "swift-nio")
let nioSSL: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let metrics: Target.Dependency = .product(name: "Metrics", package: "swift-metrics")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")

let package = Package(
    name: "devicerpc",
    platforms: [.macOS(.v15)],  // Linux is what we build for; this only quiets availability checks.
    products: [
        .executable(name: "devicerpc", targets: ["devicerpc"]),
        .library(name: "RPCTransport", targets: ["RPCTransport"]),
        .library(name: "SagaRuntime", targets: ["SagaRuntime"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0", traits: ["JSON", "YAML"]),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/vapor/jwt-kit", from: "5.7.1"),
    ],
    targets: [
        .systemLibrary(name: "CNghttp2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CProtobufC", pkgConfig: "libprotobuf-c", providers: [.apt(["libprotobuf-c-dev"])]),
        .systemLibrary(name: "CLibpq", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
        .target(name: "Proto", dependencies: ["CProtobufC"]),
        .target(
            name: "RPCTransport", dependencies: ["CNghttp2", "CZlib", nioCore, nioPosix, nioTLS, nioSSL, logging],
            swiftSettings: settings),
        .target(
            name: "SagaRuntime", dependencies: ["CLibpq", logging, metrics], swiftSettings: settings),
        .target(
            name: "DeviceProvisioning",
            dependencies: [
                "SagaRuntime", nioCore, nioPosix, nioSSL, logging, metrics,
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "JWTKit", package: "jwt-kit"),
                .product(name: "Yams", package: "Yams"),
            ], swiftSettings: settings),
        .target(
            name: "DeviceRPC",
            dependencies: [
                "RPCTransport", "DeviceProvisioning", "SagaRuntime", "Proto", "CProtobufC", nioCore, logging, metrics,
                crypto, .product(name: "JWTKit", package: "jwt-kit"),
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "devicerpc",
            dependencies: [
                "DeviceRPC", "DeviceProvisioning", "SagaRuntime", "RPCTransport", nioCore, nioPosix, logging, metrics,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ], swiftSettings: settings),
        // Serves what the peers of `./dev bench rpc` serve.
        .executableTarget(
            name: "BenchServer", dependencies: ["RPCTransport", nioCore, logging], path: "Benchmarks/server",
            swiftSettings: settings),
        .target(
            name: "TestSupport", dependencies: ["SagaRuntime"], path: "Tests/TestSupport", swiftSettings: settings),
        .target(
            name: "InteropMessages", dependencies: ["RPCTransport", nioCore], path: "Tests/InteropMessages",
            exclude: ["proto"], swiftSettings: settings),
        .executableTarget(
            name: "InteropServer",
            dependencies: [
                "InteropMessages", "RPCTransport", nioCore, logging,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], path: "Tests/InteropServer", swiftSettings: settings),
        .executableTarget(
            name: "InteropClient",
            dependencies: [
                "InteropMessages", "RPCTransport", nioCore,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], path: "Tests/InteropClient", swiftSettings: settings),
        // Runs the engine under seeds (docs/simulator.md).
        .executableTarget(
            name: "Simulator", dependencies: ["DeviceProvisioning", "SagaRuntime", "TestSupport", logging],
            path: "Tests/Simulator", swiftSettings: settings),
        .testTarget(
            name: "RPCTransportTests",
            dependencies: [
                "RPCTransport", nioCore, nioPosix, logging, .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "SagaRuntimeTests", dependencies: ["SagaRuntime", "TestSupport", logging], swiftSettings: settings),
        .testTarget(
            name: "DeviceProvisioningTests",
            dependencies: [
                "DeviceProvisioning", "SagaRuntime", "TestSupport", nioCore, nioPosix, logging,
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "DeviceRPCTests",
            dependencies: [
                "DeviceRPC", "Proto", "CProtobufC", "RPCTransport", "SagaRuntime", nioCore, nioPosix, logging,
                .product(name: "JWTKit", package: "jwt-kit"),
            ],
            swiftSettings: settings),
        .target(
            name: "Fuzzing",
            dependencies: [
                "DeviceRPC", "DeviceProvisioning", "SagaRuntime", "RPCTransport", nioCore, logging,
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ], path: "Tests/Fuzzing", exclude: ["corpus"], swiftSettings: settings),
        .testTarget(
            name: "FuzzingTests",
            dependencies: [
                "Fuzzing", "RPCTransport", nioCore, logging, .product(name: "NIOEmbedded", package: "swift-nio"),
            ], swiftSettings: settings),
        .testTarget(
            name: "CommandLineTests",
            dependencies: [
                "devicerpc", "DeviceRPC", "RPCTransport", "SagaRuntime", logging, metrics, nioCore,
                .product(name: "Configuration", package: "swift-configuration"),
            ], swiftSettings: settings),
    ]
)

// libFuzzer brings its own `main`, so this cannot be part of an ordinary build. `./dev fuzz` sets the variable.
if Context.environment["DEVICERPC_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(name: "Fuzz", dependencies: ["Fuzzing"], path: "Tests/Fuzz", swiftSettings: settings))
}
