import NIOCore

@testable import RPCTransport

/// The forms that header values have, and the messages that the transport itself reads.
enum TextFuzz {
    static func run(_ choice: UInt8, _ bytes: [UInt8], _ broken: inout [String]) {
        switch choice {
        case 0: Self.timeout(bytes, &broken)
        case 1: Self.base64(bytes, &broken)
        case 2: Self.statusMessage(bytes, &broken)
        case 3: Self.headers(bytes, &broken)
        case 4: Self.assembler(bytes, &broken)
        case 5:
            var reader = ProtoReader(bytes)
            while let field = reader.next() { _ = field }
        case 6:
            _ = DescriptorIndex(descriptorSet: bytes).closure(of: "a", without: [])
        default:
            var sent: Set<String> = []
            _ = try? Self.reflection.answer(ByteBuffer(bytes: bytes), &sent)
        }
    }

    private static let reflection = ReflectionService(descriptorSet: [], services: [])

    private static func timeout(_ bytes: [UInt8], _ broken: inout [String]) {
        guard let time = bytes.withUnsafeBufferPointer({ GRPCTimeout.parse($0) }) else { return }
        let again = Array(GRPCTimeout.encode(nanoseconds: time).utf8).withUnsafeBufferPointer { GRPCTimeout.parse($0) }
        // Rounded up to what eight digits can say, and hours are cut.
        guard let again, again >= time || time - again < 3_600_000_000_000 else {
            return broken.append("a timeout of \(time) ns becomes \(String(describing: again))")
        }
    }

    private static func base64(_ bytes: [UInt8], _ broken: inout [String]) {
        if Base64.decode(Base64.encode(bytes)) != bytes { broken.append("base64 changes bytes") }
        guard let decoded = Base64.decode(bytes) else { return }
        if Base64.decode(Base64.encode(decoded)) != decoded { broken.append("base64 changes what it decoded") }
    }

    private static func statusMessage(_ bytes: [UInt8], _ broken: inout [String]) {
        let text = bytes.withUnsafeBufferPointer { StatusMessage.decode($0) }
        let encoded = StatusMessage.encode(text, limit: .max)
        if !encoded.allSatisfy({ (0x20...0x7E).contains($0) }) {
            broken.append("a status message that no header holds")
        }
        if encoded.withUnsafeBufferPointer({ StatusMessage.decode($0) }) != text {
            broken.append("a status message changes when it is encoded")
        }
        if StatusMessage.encode(text, limit: 20).count > 20 { broken.append("a status message past its limit") }
    }

    /// Names and values, each behind a byte that says how long it is.
    private static func headers(_ bytes: [UInt8], _ broken: inout [String]) {
        var source = ByteSource(bytes)
        var list = HeaderList()
        let names = [":path", ":method", "content-type", "te", "grpc-timeout", "grpc-encoding", "x-bin", "host"]
        while !source.isEmpty, list.fields.count < 128 {
            let choice = Int(source.byte())
            let name = choice < names.count ? Array(names[choice].utf8) : source.take(choice % 32)
            list.append(name, source.take(Int(source.byte())))
        }
        let metadata = Metadata(list)
        for entry in metadata.entries { _ = (metadata.all(entry.name), metadata.allBinary(entry.name)) }
        switch RequestHead.parse(list) {
        case .refuse: break
        case .call(let head):
            let path = head.list.bytes[head.path]
            _ = path.withUnsafeBufferPointer { Router(services: []).explainUnknown($0) }
            if let nanoseconds = head.timeoutNanoseconds, nanoseconds < 0 { broken.append("a timeout below zero") }
        }
        var machine = ClientStreamMachine(expectsOneResponse: true, messageLimit: 100)
        _ = machine.receivedHeaders(list, endStream: bytes.count % 2 == 0)
        _ = machine.receivedHeaders(list, endStream: true)
    }

    /// The pieces are as long as the first bytes say: cutting them otherwise must change nothing.
    private static func assembler(_ bytes: [UInt8], _ broken: inout [String]) {
        func messages(_ piece: Int) -> ([ByteBuffer], failed: Bool, credit: Int) {
            var assembler = MessageAssembler(limit: 300, side: "server")
            var result: [ByteBuffer] = []
            var credit = 0
            var rest = bytes.dropFirst()
            while !rest.isEmpty {
                var chunk = ByteBuffer(bytes: rest.prefix(piece))
                rest = rest.dropFirst(piece)
                do {
                    while let message = try assembler.next(from: &chunk) {
                        result.append(message.bytes)
                        credit += message.credit
                    }
                    credit += assembler.takeCreditOfIncompleteMessage()
                } catch {
                    return (result, true, credit)
                }
            }
            return (result, false, credit)
        }
        let whole = messages(.max)
        let pieces = messages(1 + Int(bytes.first ?? 0))
        if whole.0 != pieces.0 || whole.failed != pieces.failed {
            broken.append("messages depend on how they were cut")
        }
        if !whole.failed, whole.credit != max(0, bytes.count - 1) || pieces.credit != whole.credit {
            broken.append("\(whole.credit) and \(pieces.credit) bytes of credit for \(bytes.count - 1)")
        }
    }
}
