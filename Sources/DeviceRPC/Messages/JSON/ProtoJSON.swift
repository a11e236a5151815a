import DeviceProvisioning

/// proto3 JSON (protobuf.dev, "ProtoJSON Format"), driven by the generated descriptors: member names in lowerCamelCase
/// (on reading the contract's own names too), enums by name, 64-bit numbers and bytes as strings, timestamps by RFC 3339,
/// durations as `"600s"`. A member that the contract doesn't know is refused.
public enum ProtoJSON {
    public struct WritingOptions: Sendable {
        /// On lines of their own, two spaces a level; otherwise all on one line.
        public var isPretty: Bool
        /// Fields at their default are written too (messages that are not set never are).
        public var includesDefaults: Bool

        public init(isPretty: Bool = false, includesDefaults: Bool = false) {
            self.isPretty = isPretty
            self.includesDefaults = includesDefaults
        }

        public static let compact = WritingOptions()
        public static let pretty = WritingOptions(isPretty: true)
    }

    /// Reads messages that follow each other (one a line, or any other white space between them), or one array of them.
    public static func messages<Message: ProtobufMessage>(
        _ text: String, as type: Message.Type = Message.self
    ) throws(ProtoJSONError) -> [Message] {
        do throws(ProtoJSONError) {
            var values = try ProtoJSONError.rethrowing { () throws(JSONError) in try JSONParser.parseSequence(text) }
            if values.count == 1, case .array(let elements) = values[0].content { values = elements }
            var messages: [Message] = []
            for value in values { messages.append(try Message(json: value)) }
            return messages
        } catch {
            throw error.placed(in: text)
        }
    }
}

/// Why a text is not the JSON of a message, and where.
public struct ProtoJSONError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What is wrong, with the member's path where there is one: `spec.cpuCores: a whole number from 0 to … expected`.
    public var problem: String
    /// From 1.
    public private(set) var line = 1
    /// From 1, in characters.
    public private(set) var column = 1

    private var offset: Int

    init(_ problem: String, at offset: Int) {
        self.problem = problem
        self.offset = offset
    }

    /// Does `body`; a text that is not even JSON is this error too.
    static func rethrowing<Result>(_ body: () throws(JSONError) -> Result) throws(ProtoJSONError) -> Result {
        do {
            return try body()
        } catch {
            throw ProtoJSONError(error.problem, at: error.offset)
        }
    }

    /// With line and column, which only the whole text can tell.
    func placed(in text: String) -> ProtoJSONError {
        var result = self
        result.line = 1
        result.column = 1
        for byte in text.utf8.prefix(self.offset) {
            if byte == UInt8(ascii: "\n") {
                result.line += 1
                result.column = 1
            } else if byte & 0xc0 != 0x80 {
                result.column += 1
            }
        }
        return result
    }

    public var description: String { "line \(self.line), column \(self.column): \(self.problem)" }
}

extension CConvertible {
    public init(json: String) throws(ProtoJSONError) {
        do throws(ProtoJSONError) {
            let value = try ProtoJSONError.rethrowing { () throws(JSONError) in try JSONParser.parse(json) }
            try self.init(json: value)
        } catch {
            throw error.placed(in: json)
        }
    }

    public init(json value: JSONValue) throws(ProtoJSONError) {
        self = try MessageArena.withArena { (arena) throws(ProtoJSONError) -> Self in
            let message = try ProtoJSONReader(arena: arena).message(value, of: Self.descriptor, path: "")
            return message.withMemoryRebound(to: CMessage.self, capacity: 1) { Self($0.pointee) }
        }
    }

    public func json(_ options: ProtoJSON.WritingOptions) -> String {
        MessageArena.withArena { arena in
            var writer = ProtoJSONWriter(options: options)
            writer.write(arena.message(self))
            return writer.text
        }
    }
}
