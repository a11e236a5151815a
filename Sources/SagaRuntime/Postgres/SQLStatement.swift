/// A named SQL statement. A connection prepares it under its name when it first meets it, in the same round trip.
///
/// Two statements of one name must have one text: the name stands for it on the server.
public struct SQLStatement: Sendable, Hashable {
    /// At most 63 bytes; longer names are the same to the server if they begin alike. Empty: parsed for each use and not kept,
    /// for what is asked seldom.
    public let name: String
    public let text: String

    public init(_ name: String, _ text: String) {
        self.name = name
        self.text = text
    }

    public static func == (lhs: SQLStatement, rhs: SQLStatement) -> Bool {
        lhs.name == rhs.name && lhs.text == rhs.text
    }
    public func hash(into hasher: inout Hasher) { hasher.combine(self.name) }
}

/// A statement and the values of its `$1`, `$2`, …
public struct SQLQuery: Sendable {
    public var statement: SQLStatement
    public var parameters: SQLParameters

    public init(_ statement: SQLStatement, _ parameters: SQLParameters = SQLParameters()) {
        self.statement = statement
        self.parameters = parameters
    }
}
