/// How log lines look.
enum LogFormat: String, CaseIterable, Sendable { case text, json }
