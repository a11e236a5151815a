/// A JSON document as a tree, with the place of every value, so that a complaint can say where. Nothing in it is trusted.
public struct JSONValue: Sendable {
    package indirect enum Content: Sendable {
        case null
        case bool(Bool)
        /// As it is written, so that 64-bit integers keep all their digits.
        case number(String)
        case string(String)
        case array([JSONValue])
        /// In the order of the text; keys are unique.
        case object([(key: String, value: JSONValue)])
    }

    package var content: Content
    /// Where it begins, in bytes from the text's beginning.
    package var offset: Int

    package init(content: Content, offset: Int) {
        self.content = content
        self.offset = offset
    }

    /// Reads one value and nothing else.
    /// - Throws: `JSONError` also for a text of more than 64 KiB, which no step and no service of ours writes.
    init(parsing text: String) throws(JSONError) {
        guard text.utf8.count <= JSONParser.maximumStoredBytes else {
            throw JSONError(problem: "too long", offset: JSONParser.maximumStoredBytes)
        }
        self = try JSONParser.parse(text)
    }

    package var kind: String {
        switch self.content {
        case .null: "null"
        case .bool: "a boolean"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }

    subscript(key: String) -> JSONValue? {
        if case .object(let members) = self.content { members.first { $0.key == key }?.value } else { nil }
    }

    var string: String? {
        if case .string(let value) = self.content { value } else { nil }
    }

    var integer: Int? {
        if case .number(let value) = self.content { Int(value) } else { nil }
    }

    var bool: Bool? {
        if case .bool(let value) = self.content { value } else { nil }
    }

    /// An object whose values are all strings.
    var strings: [String: String]? {
        guard case .object(let members) = self.content else { return nil }
        var strings: [String: String] = [:]
        for (key, value) in members {
            guard let value = value.string else { return nil }
            strings[key] = value
        }
        return strings
    }
}

/// Why a text is not JSON, and where.
package struct JSONError: Error, Sendable, Equatable {
    package var problem: String
    /// In bytes from the text's beginning.
    package var offset: Int
}
