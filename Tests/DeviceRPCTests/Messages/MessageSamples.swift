import DeviceRPC
import NIOCore
import SagaRuntime

/// One filled message of every kind, for tests that go over all of them.
enum MessageSamples {
    static let timestamp = Timestamp(microseconds: 1_730_188_800_123_456)

    static let device = V1.Device.with {
        $0.deviceID = "123e4567-e89b-12d3-a456-426614174000"
        $0.name = "Pixel ☺ 😈"
        $0.description = "line\nbreak \"quoted\" \\ \u{7f}"
        $0.type = .tablet
        $0.status = .running
        $0.provider = .huaweiCPH
        $0.userID = "user-1"
        $0.tenantID = "tenant-1"
        $0.spec = .with {
            $0.cpuCores = 4
            $0.memoryMB = 8192
            $0.storageMB = 20_480
            $0.widthPx = 1080
            $0.heightPx = 2400
            $0.dpi = 420
            $0.androidVersion = "13.0"
        }
        $0.tags = ["a", "", "ü"]
        $0.metadata = ["k": "v", "empty": "", "quote\"": "\\"]
        $0.externalID = "ext"
        $0.connection = .with {
            $0.host = "10.0.0.1"
            $0.adbPort = 5555
            $0.webrtcPort = 8080
            $0.attributes = ["region": "eu"]
        }
        $0.sagaID = "saga_1730188800000_7k2m9x4q1c"
        $0.createdAt = timestamp
        $0.updatedAt = Timestamp(microseconds: -1)
        $0.site = "rack-1"
        $0.batchID = "batch"
        $0.operationSagaID = "saga_1730188800000_7k2m9x4q1d"
        $0.statusReason = "DEVICE_MISSING: gone"
    }

    static let saga = V1.Saga.with {
        $0.sagaID = "saga_1730188800000_7k2m9x4q1c"
        $0.type = "DEVICE_CREATION"
        $0.status = .compensated
        $0.stepIndex = 1
        $0.currentStep = "CREATE_PROVIDER_DEVICE"
        $0.steps = [
            .with {
                $0.name = "ALLOCATE_PORTS"
                $0.status = .compensated
                $0.attempts = 1
                $0.compensationAttempts = 2
                $0.startedAt = timestamp
                $0.finishedAt = timestamp
                $0.error = "gone"
            },
            V1.SagaStep(),
        ]
        $0.failure = .with {
            $0.cause = .timedOut
            $0.step = "CREATE_PROVIDER_DEVICE"
            $0.reason = "TIMED_OUT"
            $0.message = "too late"
        }
        $0.deviceID = "d"
        $0.userID = "u"
        $0.createdAt = timestamp
        $0.updatedAt = timestamp
        $0.deadline = timestamp
        $0.completedAt = Timestamp(microseconds: 0)
        $0.lastSequence = .max
        $0.requestID = "r"
        $0.batchID = "b"
        $0.isQuarantined = true
        $0.nextAttemptAt = timestamp
        $0.waitingFor = .with {
            $0.reason = "SETTLE_TIME"
            $0.dependency = "rack-1"
            $0.until = timestamp
        }
        $0.doubt = .with {
            $0.step = "CREATE_PROVIDER_DEVICE"
            $0.isSent = true
            $0.until = timestamp
        }
        $0.site = "rack-1"
        $0.isSiteServed = true
        $0.nextActions = ["resume", "skip"]
    }

    static let event = V1.SagaEvent.with {
        $0.sagaID = "saga_1730188800000_7k2m9x4q1c"
        $0.sequence = 7
        $0.time = timestamp
        $0.type = .stepRetrying
        $0.step = "START_DEVICE"
        $0.stepIndex = 4
        $0.attempt = 2
        $0.message = "no answer"
        $0.sagaStatus = .running
        $0.stepsDone = 4
        $0.stepsTotal = 5
        $0.reason = "PROVIDER_UNAVAILABLE"
        $0.retryAt = timestamp
    }

    static let createRequest = V1.CreateDeviceRequest.with {
        $0.requestID = "request-1"
        $0.name = "phone"
        $0.description = "d"
        $0.type = .phone
        $0.provider = .simulated
        $0.userID = "u"
        $0.tenantID = "t"
        $0.spec = device.spec
        $0.tags = ["x", "y"]
        $0.metadata = ["a": "1"]
        $0.providerOptions = ["latency_ms": "10"]
        $0.returnWhen = .finished
        $0.sagaTimeout = ProtobufDuration(seconds: 90, nanos: 500_000_000)
        $0.batchID = "batch"
        $0.validateOnly = true
    }

    static let status = GoogleRPC.Status.with {
        $0.code = 3
        $0.message = "wrong"
        $0.details = [
            PackedMessage(
                packing: GoogleRPC.ErrorInfo.with {
                    $0.reason = "INVALID_FIELD"
                    $0.domain = "device.cloudphone"
                    $0.metadata = ["saga_id": "s", "step": "p"]
                }),
            PackedMessage(
                packing: GoogleRPC.BadRequest.with {
                    $0.fieldViolations = [.init(field: "name", explanation: "must not be empty")]
                }),
            PackedMessage(packing: GoogleRPC.RetryInfo.with { $0.retryDelay = ProtobufDuration(seconds: 1) }),
            PackedMessage(
                packing: GoogleRPC.ResourceInfo.with {
                    $0.resourceType = "t"
                    $0.resourceName = "n"
                    $0.owner = "o"
                    $0.description = "d"
                }),
        ]
    }

    static let all: [any ProtobufMessage] = [
        device, saga, event, createRequest, status,
        V1.CreateDeviceResponse.with {
            $0.sagaID = "s"
            $0.device = device
        },
        V1.CreateDevicesResult.with {
            $0.index = .max
            $0.requestID = "r"
            $0.name = "n"
            $0.sagaID = "s"
            $0.device = device
            $0.error = GoogleRPC.Status.with {
                $0.code = 3
                $0.message = "m"
            }
        },
        V1.DeleteDeviceRequest.with {
            $0.requestID = "r"
            $0.deviceID = "d"
            $0.returnWhen = .accepted
            $0.sagaTimeout = ProtobufDuration(.seconds(5))
        },
        V1.StartDeviceRequest.with {
            $0.requestID = "r"
            $0.deviceID = "d"
            $0.returnWhen = .accepted
            $0.sagaTimeout = ProtobufDuration(.seconds(5))
        },
        V1.StopDeviceRequest.with {
            $0.requestID = "r"
            $0.deviceID = "d"
            $0.returnWhen = .finished
            $0.sagaTimeout = ProtobufDuration(.seconds(5))
        },
        V1.RestartDeviceRequest.with {
            $0.requestID = "r"
            $0.deviceID = "d"
            $0.returnWhen = .finished
            $0.sagaTimeout = ProtobufDuration(.seconds(5))
        },
        V1.DeviceOperation.with {
            $0.sagaID = "s"
            $0.device = device
        },
        V1.DeleteDeviceResponse.with {
            $0.sagaID = "s"
            $0.device = V1.Device()
        },
        V1.GetDeviceRequest.with { $0.deviceID = "d" },
        V1.ListDevicesRequest.with {
            $0.userID = "u"
            $0.statuses = [.running, .error, V1.DeviceStatus(rawValue: 99), V1.DeviceStatus(rawValue: -1)]
            $0.provider = .redroid
            $0.pageSize = 10
            $0.pageToken = "p"
            $0.batchID = "b"
            $0.namePrefix = "n"
            $0.tag = "t"
        },
        V1.BatchGetDevicesRequest.with { $0.deviceIDs = (0..<1000).map { "device-\($0)" } },
        V1.BatchGetDevicesResponse.with {
            $0.devices = Array(repeating: device, count: 100)
            $0.missingDeviceIDs = ["m"]
        },
        V1.ListDevicesResponse.with {
            $0.devices = [device, V1.Device(), device]
            $0.nextPageToken = "n"
        },
        V1.GetSagaRequest.with { $0.sagaID = "s" },
        V1.BatchGetSagasRequest.with { $0.sagaIDs = (0..<1000).map { "saga_\($0)" } },
        V1.BatchGetSagasResponse.with {
            $0.sagas = Array(repeating: saga, count: 100)
            $0.missingSagaIDs = ["m"]
        },
        V1.WatchSagaRequest.with {
            $0.sagaID = "s"
            $0.afterSequence = 3
        },
        V1.WatchSagasRequest.with {
            $0.batchID = "b"
            $0.userID = "u"
            $0.deviceID = "d"
            $0.sagaIDs = ["s", "t"]
            $0.statuses = [.parked, .running]
            $0.endWhenDone = true
        },
        V1.WatchSagasResponse.with { $0.saga = saga },
        V1.WatchSagasResponse.with { $0.event = event },
        V1.WatchSagasResponse.with { $0.synced = V1.Synced() },
        V1.ListSagasRequest.with {
            $0.statuses = [.parked]
            $0.type = "T"
            $0.userID = "u"
            $0.pageSize = 1
            $0.pageToken = "p"
            $0.deviceID = "d"
            $0.batchID = "b"
            $0.requestID = "r"
        },
        V1.ListSagasResponse.with {
            $0.sagas = [saga]
            $0.nextPageToken = "n"
        },
        V1.CompensateSagaRequest.with {
            $0.sagaID = "s"
            $0.reason = "r"
        },
        V1.ResumeSagaRequest.with {
            $0.sagaID = "s"
            $0.skipStep = true
            $0.reason = "r"
        },
        V1.ListPortsRequest.with {
            $0.host = "h"
            $0.pageSize = 5
            $0.pageToken = "t"
        },
        V1.ListPortsResponse.with {
            $0.ports = [
                .with {
                    $0.host = "h"
                    $0.kind = "adb"
                    $0.port = 5555
                    $0.deviceID = "d"
                    $0.sagaID = "s"
                }
            ]
            $0.nextPageToken = "n"
        },
    ]
}

/// A small, seeded generator (SplitMix64), so that a failure can be repeated.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { self.state = seed }

    mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
