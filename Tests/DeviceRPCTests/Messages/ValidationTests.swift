import DeviceRPC
import SagaRuntime
import Testing

/// Every field rule of the contract, one table row for each side of each bound.
@Suite struct ValidationTests {
    static let rules = CreateDeviceSpecification.Rules(
        defaultProvider: .simulated, providers: [.simulated, .redroid])

    /// The smallest request that is valid.
    static let minimal = V1.CreateDeviceRequest.with { $0.name = "n" }

    private func violations(_ validate: () throws -> Void) -> [String] {
        do {
            try validate()
            return []
        } catch let error as InvalidRequest {
            return error.violations.map(\.field)
        } catch {
            return ["\(error)"]
        }
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var change: @Sendable (inout V1.CreateDeviceRequest) -> Void
        /// Empty: valid.
        var violations: [String]

        init(
            _ name: String, _ violations: [String] = [],
            _ change: @escaping @Sendable (inout V1.CreateDeviceRequest) -> Void
        ) {
            self.name = name
            self.change = change
            self.violations = violations
        }
        var testDescription: String { self.name }
    }

    static func text(_ count: Int) -> String { String(repeating: "😈", count: count) }
    static func entries(_ count: Int) -> [String: String] {
        Dictionary(uniqueKeysWithValues: (0..<count).map { ("key\($0)", "") })
    }

    static let cases: [Case] = [
        Case("minimal") { _ in },
        Case("request_id 64") { $0.requestID = String(repeating: "~", count: 64) },
        Case("request_id 65", ["request_id"]) { $0.requestID = String(repeating: "x", count: 65) },
        Case("request_id with a space") { $0.requestID = "a b" },
        Case("request_id not ASCII", ["request_id"]) { $0.requestID = "ä" },
        Case("request_id with a tab", ["request_id"]) { $0.requestID = "a\tb" },
        Case("request_id with DEL", ["request_id"]) { $0.requestID = "\u{7f}" },
        Case("name empty", ["name"]) { $0.name = "" },
        Case("name blank", ["name"]) { $0.name = " \t\u{3000}\n" },
        Case("name 100") { $0.name = text(100) },
        Case("name 101", ["name"]) { $0.name = text(101) },
        Case("name 100 and blanks") { $0.name = "  " + text(100) + " \n" },
        Case("combining characters count as scalars", ["name"]) { $0.name = String(repeating: "e\u{301}", count: 51) },
        Case("description 500") { $0.description = text(500) },
        Case("description 501", ["description"]) { $0.description = text(501) },
        Case("type known") { $0.type = .tablet },
        Case("type unknown", ["type"]) { $0.type = .init(rawValue: 3) },
        Case("type negative", ["type"]) { $0.type = .init(rawValue: -1) },
        Case("provider configured") { $0.provider = .redroid },
        Case("provider not configured", ["provider"]) { $0.provider = .physical },
        Case("provider unknown", ["provider"]) { $0.provider = .init(rawValue: 42) },
        Case("user_id 256") { $0.userID = text(256) },
        Case("user_id 257", ["user_id"]) { $0.userID = text(257) },
        Case("tenant_id 257", ["tenant_id"]) { $0.tenantID = text(257) },
        Case("cpu_cores 1") { $0.spec = .with { $0.cpuCores = 1 } },
        Case("cpu_cores 16") { $0.spec = .with { $0.cpuCores = 16 } },
        Case("cpu_cores 17", ["spec.cpu_cores"]) { $0.spec = .with { $0.cpuCores = 17 } },
        Case("memory_mb 511", ["spec.memory_mb"]) { $0.spec = .with { $0.memoryMB = 511 } },
        Case("memory_mb 512") { $0.spec = .with { $0.memoryMB = 512 } },
        Case("memory_mb 32768") { $0.spec = .with { $0.memoryMB = 32_768 } },
        Case("memory_mb 32769", ["spec.memory_mb"]) { $0.spec = .with { $0.memoryMB = 32_769 } },
        Case("storage_mb 1023", ["spec.storage_mb"]) { $0.spec = .with { $0.storageMB = 1023 } },
        Case("storage_mb 1024") { $0.spec = .with { $0.storageMB = 1024 } },
        Case("storage_mb 1048576") { $0.spec = .with { $0.storageMB = 1_048_576 } },
        Case("storage_mb 1048577", ["spec.storage_mb"]) { $0.spec = .with { $0.storageMB = 1_048_577 } },
        Case("width_px 239", ["spec.width_px"]) { $0.spec = .with { $0.widthPx = 239 } },
        Case("width_px 240") { $0.spec = .with { $0.widthPx = 240 } },
        Case("width_px 7680") { $0.spec = .with { $0.widthPx = 7680 } },
        Case("width_px 7681", ["spec.width_px"]) { $0.spec = .with { $0.widthPx = 7681 } },
        Case("height_px 239", ["spec.height_px"]) { $0.spec = .with { $0.heightPx = 239 } },
        Case("height_px 7681", ["spec.height_px"]) { $0.spec = .with { $0.heightPx = 7681 } },
        Case("dpi 119", ["spec.dpi"]) { $0.spec = .with { $0.dpi = 119 } },
        Case("dpi 120") { $0.spec = .with { $0.dpi = 120 } },
        Case("dpi 640") { $0.spec = .with { $0.dpi = 640 } },
        Case("dpi 641", ["spec.dpi"]) { $0.spec = .with { $0.dpi = 641 } },
        Case("dpi largest", ["spec.dpi"]) { $0.spec = .with { $0.dpi = .max } },
        Case("android_version 13") { $0.spec = .with { $0.androidVersion = "13" } },
        Case("android_version 12.0") { $0.spec = .with { $0.androidVersion = "12.0" } },
        Case("android_version 8.1") { $0.spec = .with { $0.androidVersion = "8.1" } },
        Case("android_version latest", ["spec.android_version"]) { $0.spec = .with { $0.androidVersion = "latest" } },
        Case("android_version 12.", ["spec.android_version"]) { $0.spec = .with { $0.androidVersion = "12." } },
        Case("android_version .1", ["spec.android_version"]) { $0.spec = .with { $0.androidVersion = ".1" } },
        Case("android_version 1.2.3", ["spec.android_version"]) { $0.spec = .with { $0.androidVersion = "1.2.3" } },
        Case("android_version 111", ["spec.android_version"]) { $0.spec = .with { $0.androidVersion = "111" } },
        Case("android_version in other digits", ["spec.android_version"]) {
            $0.spec = .with { $0.androidVersion = "１１" }
        },
        Case("tags 10 of 50") { $0.tags = Array(repeating: text(50), count: 10) },
        Case("tags 11", ["tags"]) { $0.tags = Array(repeating: "t", count: 11) },
        Case("tags empty", ["tags[1]"]) { $0.tags = ["a", "", "b"] },
        Case("tags 51", ["tags[3]"]) { $0.tags = ["a", "b", "c", text(51)] },
        Case("metadata 32") { $0.metadata = entries(32) },
        Case("metadata 33", ["metadata"]) { $0.metadata = entries(33) },
        Case("metadata key empty", ["metadata."]) { $0.metadata = ["": "v"] },
        Case("metadata key 64") { $0.metadata = [text(64): "v"] },
        Case("metadata key 65", ["metadata.\(text(64))…"]) { $0.metadata = [text(65): "v"] },
        Case("metadata key with a control character", ["metadata.a\u{FFFD}b"]) { $0.metadata = ["a\nb": text(257)] },
        Case("metadata value 256") { $0.metadata = ["k": text(256)] },
        Case("metadata value 257", ["metadata.k"]) { $0.metadata = ["k": text(257)] },
        Case("provider_options 33", ["provider_options"]) { $0.providerOptions = entries(33) },
        Case("provider_options value 257", ["provider_options.k"]) { $0.providerOptions = ["k": text(257)] },
        Case("return_when accepted") { $0.returnWhen = .accepted },
        Case("return_when unknown", ["return_when"]) { $0.returnWhen = .init(rawValue: 4) },
        Case("saga_timeout 1 s") { $0.sagaTimeout = .init(seconds: 1) },
        Case("saga_timeout below 1 s", ["saga_timeout"]) { $0.sagaTimeout = .init(seconds: 0, nanos: 999_999_999) },
        Case("saga_timeout zero", ["saga_timeout"]) { $0.sagaTimeout = .init(seconds: 0) },
        Case("saga_timeout negative", ["saga_timeout"]) { $0.sagaTimeout = .init(seconds: -5) },
        Case("saga_timeout 24 h") { $0.sagaTimeout = .init(seconds: 86_400) },
        Case("saga_timeout over 24 h", ["saga_timeout"]) { $0.sagaTimeout = .init(seconds: 86_400, nanos: 1) },
        Case("saga_timeout of both signs", ["saga_timeout"]) { $0.sagaTimeout = .init(seconds: 5, nanos: -1) },
        Case("saga_timeout with too many nanoseconds", ["saga_timeout"]) {
            $0.sagaTimeout = .init(seconds: 5, nanos: .max)
        },
        Case("saga_timeout largest", ["saga_timeout"]) { $0.sagaTimeout = .init(seconds: .max, nanos: 0) },
        Case("batch_id 64") { $0.batchID = String(repeating: "b", count: 64) },
        Case("batch_id 65", ["batch_id"]) { $0.batchID = String(repeating: "b", count: 65) },
        Case(
            "everything at once",
            ["request_id", "name", "type", "provider", "spec.cpu_cores", "spec.dpi", "tags[0]", "saga_timeout"]
        ) {
            $0.requestID = "ä"
            $0.name = ""
            $0.type = .init(rawValue: 9)
            $0.provider = .physical
            $0.spec = .with {
                $0.cpuCores = 99
                $0.dpi = 1
            }
            $0.tags = [""]
            $0.sagaTimeout = .init(seconds: 0)
        },
    ]

    @Test(arguments: cases)
    func createDevice(example: Case) {
        var request = Self.minimal
        example.change(&request)
        let found = self.violations { _ = try CreateDeviceSpecification(validating: request, rules: Self.rules) }
        #expect(found == example.violations)
    }

    @Test func defaultsAreFilledIn() throws {
        let filled = try CreateDeviceSpecification(
            validating: .with { $0.name = " \u{3000}phone \n" }, rules: Self.rules)
        #expect(filled.name == "phone")
        #expect(filled.type == .phone)
        #expect(filled.provider == .simulated)
        #expect(filled.returnWhen == .provisioned)
        #expect(filled.sagaTimeout == .seconds(600))
        #expect(
            filled.spec
                == .with {
                    $0.cpuCores = 2
                    $0.memoryMB = 4096
                    $0.storageMB = 10_240
                    $0.widthPx = 1920
                    $0.heightPx = 1080
                    $0.dpi = 240
                    $0.androidVersion = "11"
                })
    }

    @Test func theSameRequestHasTheSameCanonicalBytes() throws {
        func bytes(_ change: (inout V1.CreateDeviceRequest) -> Void) throws -> [UInt8] {
            var request = Self.minimal
            request.metadata = ["a": "1", "b": "2"]
            change(&request)
            return try CreateDeviceSpecification(validating: request, rules: Self.rules).canonicalBytes
        }
        let original = try bytes { _ in }
        // Defaults written out, the id and return_when make no difference.
        #expect(
            try original
                == bytes {
                    $0.requestID = "r"
                    $0.name = " n "
                    $0.type = .phone
                    $0.provider = .simulated
                    $0.spec = .with {
                        $0.cpuCores = 2
                        $0.androidVersion = "11"
                    }
                    $0.returnWhen = .finished
                    $0.sagaTimeout = .init(seconds: 600)
                })
        // Everything else does.
        let changes: [(inout V1.CreateDeviceRequest) -> Void] = [
            { $0.name = "m" }, { $0.description = "d" }, { $0.type = .tablet }, { $0.provider = .redroid },
            { $0.userID = "u" }, { $0.tenantID = "t" }, { $0.spec = .with { $0.cpuCores = 3 } }, { $0.tags = ["t"] },
            { $0.metadata["a"] = "3" }, { $0.providerOptions = ["o": "1"] }, { $0.sagaTimeout = .init(seconds: 601) },
            { $0.batchID = "b" },
        ]
        for change in changes { #expect(try bytes(change) != original) }
    }

    @Test func theProvidersOwnRulesAreReportedBesideTheContracts() {
        let found = self.violations {
            _ = try CreateDeviceSpecification(validating: V1.CreateDeviceRequest(), rules: Self.rules) {
                specification in
                [.init(field: "provider_options.fps", explanation: "is not known for \(specification.provider)")]
            }
        }
        #expect(found == ["name", "provider_options.fps"])
    }

    @Test func violationsThatFitNoTrailerAreCounted() {
        let request = V1.CreateDeviceRequest.with {
            $0.name = "n"
            $0.tags = Array(repeating: "", count: 1000)
        }
        #expect {
            try CreateDeviceSpecification(validating: request, rules: Self.rules)
        } throws: { error in
            guard let error = error as? InvalidRequest else { return false }
            return error.violations.count > 10 && error.violations.count + error.omitted == 1001
                && error.description == "tags: must have up to 10 elements, has 1000 (and 1000 more)"
        }
    }

    @Test func violationsSayWhatIsAllowed() {
        let request = V1.CreateDeviceRequest.with {
            $0.type = .init(rawValue: 9)
            $0.spec = .with { $0.cpuCores = 17 }
        }
        #expect {
            try CreateDeviceSpecification(validating: request, rules: Self.rules)
        } throws: { error in
            (error as? InvalidRequest)?.violations.map(\.description) == [
                "name: must have 1 to 100 characters (white space around it is not counted), has 0",
                "type: must be one of DEVICE_TYPE_UNSPECIFIED, DEVICE_TYPE_PHONE, DEVICE_TYPE_TABLET, is 9",
                "spec.cpu_cores: must be 1 to 16, or 0 for 2; is 17",
            ]
        }
    }

    // MARK: The other requests

    static let uuid = "123E4567-e89b-12d3-a456-426614174000"

    @Test(
        arguments: [
            ("", ["device_id"]), (uuid, []), ("123e4567e89b12d3a456426614174000", ["device_id"]),
            ("123e4567-e89b-12d3-a456-42661417400g", ["device_id"]), (uuid + "0", ["device_id"]),
            ("123e4567-e89b-12d3-a456-4266141740é", ["device_id"]), ("{\(uuid)}", ["device_id"]),
        ] as [(String, [String])])
    func deviceIDs(id: String, expected: [String]) {
        #expect(
            self.violations { _ = try V1.GetDeviceRequest.with { $0.deviceID = id }.validatedDeviceID() } == expected)
        let delete = V1.DeleteDeviceRequest.with { $0.deviceID = id }
        #expect(self.violations { _ = try DeviceOperationSpecification(validating: delete) } == expected)
        let list = V1.ListSagasRequest.with { $0.deviceID = id }
        #expect(self.violations { _ = try ListSagasQuery(validating: list) } == (id.isEmpty ? [] : expected))
    }

    @Test func deviceIDsAreLowerCase() throws {
        #expect(try V1.GetDeviceRequest.with { $0.deviceID = Self.uuid }.validatedDeviceID() == Self.uuid.lowercased())
    }

    @Test(
        arguments: [
            (V1.ReturnWhen.unspecified, []), (.finished, []), (.accepted, []), (.provisioned, ["return_when"]),
            (.init(rawValue: 8), ["return_when"]),
        ] as [(V1.ReturnWhen, [String])])
    func deleteReturnWhen(returnWhen: V1.ReturnWhen, expected: [String]) {
        let request = V1.DeleteDeviceRequest.with {
            $0.deviceID = Self.uuid
            $0.returnWhen = returnWhen
        }
        #expect(self.violations { _ = try DeviceOperationSpecification(validating: request) } == expected)
        let restart = V1.RestartDeviceRequest.with {
            $0.deviceID = Self.uuid
            $0.returnWhen = returnWhen
            $0.sagaTimeout = ProtobufDuration(.milliseconds(500))
        }
        #expect(
            self.violations { _ = try DeviceOperationSpecification(validating: restart) } == expected + ["saga_timeout"]
        )
        if expected.isEmpty, returnWhen == .unspecified {
            #expect((try? DeviceOperationSpecification(validating: request))?.returnWhen == .finished)
        }
    }

    @Test(arguments: [
        ("saga_1730188800000_7k2m9x4q1c", true), ("", false), ("saga_1730188800000_7k2m9x4q1", false),
        ("saga_173018880000_7k2m9x4q1c0", false), ("Saga_1730188800000_7k2m9x4q1c", false),
        ("saga_1730188800000_7K2m9x4q1c", false), ("saga_1730188800000_7k2m9x4q1c ", false),
    ])
    func sagaIDs(id: String, isValid: Bool) {
        let expected = isValid ? [] : ["saga_id"]
        #expect(self.violations { _ = try V1.GetSagaRequest.with { $0.sagaID = id }.validatedSagaID() } == expected)
        #expect(self.violations { _ = try V1.WatchSagaRequest.with { $0.sagaID = id }.validatedSagaID() } == expected)
        #expect(self.violations { _ = try V1.ResumeSagaRequest.with { $0.sagaID = id }.validatedSagaID() } == expected)
        #expect(
            self.violations { _ = try V1.CompensateSagaRequest.with { $0.sagaID = id }.validatedSagaID() } == expected)
        let batch = V1.BatchGetSagasRequest.with { $0.sagaIDs = ["saga_1730188800000_7k2m9x4q1d", id] }
        #expect(self.violations { _ = try batch.validatedSagaIDs() } == (isValid ? [] : ["saga_ids[1]"]))
    }

    @Test func batchesOfSagaIDs() throws {
        let id = "saga_1730188800000_7k2m9x4q1c"
        let ids = (0..<1001).map { "saga_1730188800000_\(1_000_000_000 + $0)" }
        #expect(
            try V1.BatchGetSagasRequest.with { $0.sagaIDs = Array(ids.prefix(1000)) }.validatedSagaIDs().count == 1000)
        #expect(
            self.violations { _ = try V1.BatchGetSagasRequest.with { $0.sagaIDs = ids }.validatedSagaIDs() } == [
                "saga_ids"
            ])
        #expect(
            try V1.BatchGetSagasRequest.with { $0.sagaIDs = [ids[0], id, ids[0]] }.validatedSagaIDs().map(\.rawValue)
                == [ids[0], id])
        #expect(try V1.BatchGetSagasRequest().validatedSagaIDs().isEmpty)
    }

    @Test func batchesOfDeviceIDs() throws {
        let id = "01A23138-27EA-76F9-96DB-6F6F2CAAED7C"
        func violations(_ ids: [String]) -> [String] {
            self.violations { _ = try V1.BatchGetDevicesRequest.with { $0.deviceIDs = ids }.validatedDeviceIDs() }
        }
        #expect(violations(Array(repeating: id, count: 1000)) == [])
        #expect(violations(Array(repeating: id, count: 1001)) == ["device_ids"])
        #expect(violations([id, "x", ""]) == ["device_ids[1]", "device_ids[2]"])
        let ids = try V1.BatchGetDevicesRequest.with { $0.deviceIDs = [id, id.lowercased()] }.validatedDeviceIDs()
        #expect(ids == [id.lowercased()])
    }

    @Test func whatIsWatched() throws {
        let id = "saga_1730188800000_7k2m9x4q1c"
        let query = try WatchSagasQuery(
            validating: .with {
                $0.sagaIDs = [id, id]
                $0.statuses = [.parked, .running, .parked]
            }, mayWatchAll: false)
        #expect(query.sagaIDs.map(\.rawValue) == [id])
        #expect(query.statuses == [.running, .parked])
        #expect(self.violations { _ = try WatchSagasQuery(validating: .init(), mayWatchAll: true) } == [])
        // Statuses alone are no filter.
        let all = V1.WatchSagasRequest.with { $0.statuses = [.running] }
        #expect(self.violations { _ = try WatchSagasQuery(validating: all, mayWatchAll: false) } == ["batch_id"])
        let wrong = V1.WatchSagasRequest.with {
            $0.batchID = "ü"
            $0.deviceID = "d"
            $0.sagaIDs = [id, "s"]
            $0.statuses = [.unspecified]
        }
        #expect(
            self.violations { _ = try WatchSagasQuery(validating: wrong, mayWatchAll: true) } == [
                "batch_id", "device_id", "saga_ids[1]", "statuses[0]",
            ])
    }

    @Test func reasonsOfOperators() {
        let id = "saga_1730188800000_7k2m9x4q1c"
        for (count, expected) in [(1000, []), (1001, ["reason"])] {
            let compensate = V1.CompensateSagaRequest.with {
                $0.sagaID = id
                $0.reason = Self.text(count)
            }
            #expect(self.violations { _ = try compensate.validatedSagaID() } == expected)
            let resume = V1.ResumeSagaRequest.with {
                $0.sagaID = id
                $0.reason = Self.text(count)
            }
            #expect(self.violations { _ = try resume.validatedSagaID() } == expected)
        }
    }

    @Test func filters() throws {
        let devices = V1.ListDevicesRequest.with {
            $0.userID = Self.text(257)
            $0.statuses = [.running, .unspecified, .init(rawValue: 17)]
            $0.provider = .init(rawValue: 99)
            $0.pageSize = 1001
            $0.pageToken = "?"
            $0.batchID = "ä"
            $0.namePrefix = Self.text(101)
            $0.tag = Self.text(51)
        }
        #expect(
            self.violations { _ = try ListDevicesQuery(validating: devices) }
                == [
                    "user_id", "statuses[1]", "statuses[2]", "provider", "batch_id", "name_prefix", "tag", "page_size",
                    "page_token",
                ])
        let sagas = V1.ListSagasRequest.with {
            $0.statuses = [.unspecified]
            $0.type = Self.text(65)
            $0.userID = Self.text(257)
            $0.deviceID = "x"
            $0.batchID = "ä"
            $0.requestID = Self.text(65)
            $0.pageSize = .max
        }
        #expect(
            self.violations { _ = try ListSagasQuery(validating: sagas) }
                == ["statuses[0]", "type", "user_id", "device_id", "batch_id", "request_id", "page_size"])
        let ports = V1.ListPortsRequest.with {
            $0.host = Self.text(254)
            $0.pageSize = 1001
        }
        #expect(self.violations { _ = try ListPortsQuery(validating: ports) } == ["host", "page_size"])

        let query = try ListDevicesQuery(validating: .with { $0.statuses = [.error, .running, .error] })
        #expect(query.statuses == [.running, .error])
        #expect(query.page.size == 100)
        #expect(query.page.cursor == nil)
    }

    @Test func aTokenBelongsToItsFilters() throws {
        func query(_ token: String, user: String = "u", size: UInt32 = 0) throws -> ListSagasQuery {
            try ListSagasQuery(
                validating: .with {
                    $0.userID = user
                    $0.pageToken = token
                    $0.pageSize = size
                })
        }
        let token = try query("").page.token(after: "saga_1730188800000_7k2m9x4q1c")
        #expect(
            token.utf8.allSatisfy {
                Character(Unicode.Scalar($0)).isLetter || (48...57).contains($0) || $0 == 45 || $0 == 95
            })
        #expect(try query(token).page.cursor == "saga_1730188800000_7k2m9x4q1c")
        #expect(try query(token, size: 1000).page.cursor == "saga_1730188800000_7k2m9x4q1c")
        for (token, user) in [
            (token, "other"), (String(token.dropLast(3)) + "AAA=", "u"), ("AA", "u"), ("\(token)\(token)", "other"),
        ] {
            #expect(throws: InvalidRequest.self, "\(token)") { try query(token, user: user) }
        }
    }
}
