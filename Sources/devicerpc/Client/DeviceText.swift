import DeviceRPC
import SagaRuntime

/// Devices and sagas, for people.
enum DeviceText {
    /// Names and values in two columns; empty values are left out.
    static func fields(_ fields: [(String, String)]) -> String {
        let shown = fields.filter { !$0.1.isEmpty }
        let width = shown.map(\.0.count).max() ?? 0
        return shown.map { "\($0.0.padded(to: width))  \(Printable.text($0.1))\n" }.joined()
    }

    static func device(_ device: V1.Device) -> String {
        var fields = [
            ("device_id", device.deviceID), ("name", device.name), ("description", device.description),
            ("status", device.status.shortName), ("status_reason", device.statusReason),
            ("provider", device.provider.shortName), ("site", device.site),
            ("type", device.type.shortName), ("user_id", device.userID), ("tenant_id", device.tenantID),
            ("batch_id", device.batchID),
            ("external_id", device.externalID),
        ]
        if let connection = device.connection { fields += Self.connection(connection) }
        if let spec = device.spec {
            fields.append(
                (
                    "spec",
                    "\(spec.cpuCores) cores, \(spec.memoryMB) MB, \(spec.storageMB) MB storage, "
                        + "\(spec.widthPx)×\(spec.heightPx) at \(spec.dpi) dpi, Android \(spec.androidVersion)"
                ))
        }
        fields.append(("tags", device.tags.joined(separator: ", ")))
        for (key, value) in device.metadata.sorted(by: { $0.key < $1.key }) {
            fields.append(("metadata.\(key)", value))
        }
        fields += [
            ("saga_id", device.sagaID), ("operation_saga_id", device.operationSagaID),
            ("created_at", Self.time(device.createdAt)),
            ("updated_at", Self.time(device.updatedAt)),
        ]
        return Self.fields(fields)
    }

    static func status(_ saga: V1.Saga) -> String {
        saga.isQuarantined ? "\(saga.status.shortName) (quarantined)" : saga.status.shortName
    }

    private static func wait(_ wait: V1.SagaWait?) -> String {
        guard let wait else { return "" }
        var text = wait.reason
        if !wait.dependency.isEmpty { text += " of \(wait.dependency)" }
        if let until = wait.until { text += ", until \(Self.time(until))" }
        return text
    }

    static func saga(_ saga: V1.Saga, style: TextStyle) -> String {
        var text = Self.fields([
            ("saga_id", saga.sagaID), ("type", saga.type), ("status", Self.status(saga)),
            ("current_step", "\(saga.stepIndex) \(saga.currentStep)"), ("waiting_for", Self.wait(saga.waitingFor)),
            ("in_doubt", saga.doubt.map { "\($0.step): what a call has done is not known" } ?? ""),
            ("site", saga.site.isEmpty || saga.isSiteServed ? saga.site : "\(saga.site) (no live replica serves it)"),
            ("device_id", saga.deviceID),
            ("user_id", saga.userID), ("request_id", saga.requestID), ("batch_id", saga.batchID),
            ("failure", saga.failure.map { "\($0.cause.shortName) in \($0.step): \($0.reason): \($0.message)" } ?? ""),
            ("created_at", Self.time(saga.createdAt)), ("updated_at", Self.time(saga.updatedAt)),
            ("deadline", Self.time(saga.deadline)), ("completed_at", Self.time(saga.completedAt)),
            ("last_sequence", "\(saga.lastSequence)"),
        ])
        if let outlook = SagaOutlook(saga) { text += "\n" + outlook.text }
        var table = TextTable(["STEP", "STATUS", "ATTEMPTS", "TOOK", "ERROR"])
        for step in saga.steps {
            let attempts =
                step.compensationAttempts > 0
                ? "\(step.attempts), undo \(step.compensationAttempts)" : "\(step.attempts)"
            var took = ""
            if let start = step.startedAt, let end = step.finishedAt {
                took = ProgressBar.elapsed(max(.zero, end - start))
            }
            table.append([step.name, step.status.shortName, attempts, took, step.error])
        }
        text += "\n" + table.render(style: style)
        return text
    }

    static func devices(_ devices: [V1.Device], style: TextStyle) -> String {
        var table = TextTable(["DEVICE", "NAME", "STATUS", "PROVIDER", "USER", "ADB", "CREATED"])
        for device in devices {
            let connection = device.connection.map { "\($0.host):\($0.adbPort)" } ?? ""
            table.append([
                device.deviceID, device.name, device.status.shortName, device.provider.shortName, device.userID,
                connection, Self.time(device.createdAt),
            ])
        }
        return table.render(style: style)
    }

    static func sagas(_ sagas: [V1.Saga], style: TextStyle) -> String {
        var table = TextTable(["SAGA", "TYPE", "STATUS", "STEP", "DEVICE", "USER", "CREATED", "REASON"])
        for saga in sagas {
            table.append([
                saga.sagaID, saga.type, Self.status(saga), saga.currentStep, saga.deviceID, saga.userID,
                Self.time(saga.createdAt), saga.failure?.reason ?? "",
            ])
        }
        return table.render(style: style)
    }

    static func ports(_ ports: [V1.AllocatedPort], style: TextStyle) -> String {
        var table = TextTable(["HOST", "KIND", "PORT", "DEVICE", "SAGA"])
        for port in ports { table.append([port.host, port.kind, "\(port.port)", port.deviceID, port.sagaID]) }
        return table.render(style: style)
    }

    static func connection(_ connection: V1.Connection) -> [(String, String)] {
        if connection.host.isEmpty { return [] }
        var fields = [("adb", "\(connection.host):\(connection.adbPort)")]
        if connection.webrtcPort > 0 { fields.append(("webrtc", "\(connection.host):\(connection.webrtcPort)")) }
        for (key, value) in connection.attributes.sorted(by: { $0.key < $1.key }) { fields.append((key, value)) }
        return fields
    }

    static func time(_ time: Timestamp?) -> String { time.map { WallClock.render($0.microseconds) } ?? "" }
}
