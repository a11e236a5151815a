/// One numbered change of the schema. Once released it is never edited: a later one corrects it.
public struct Migration: Sendable {
    /// From 1, unique over all modules of the program; each module has a range of its own.
    public var version: Int
    /// e.g. `saga_tables`; with the number it reads `001_saga_tables`.
    public var name: String
    /// Programs that don't know this change can't serve the database any more: it takes away what they need (the
    /// contraction after an expansion). The default, false: they can.
    public var excludesOlderPrograms: Bool
    /// One or more statements. They run in one transaction.
    public var sql: String

    public init(version: Int, name: String, excludesOlderPrograms: Bool = false, sql: String) {
        self.version = version
        self.name = name
        self.excludesOlderPrograms = excludesOlderPrograms
        self.sql = sql
    }

    /// e.g. `001_saga_tables`.
    public var title: String {
        let number = String(self.version)
        return String(repeating: "0", count: max(0, 3 - number.utf8.count)) + number + "_" + self.name
    }
}
