import Glibc

/// What a command is about to do to many, and whether whoever gave it agrees.
enum Confirmation {
    /// - Parameters:
    ///   - preview: what is shown of those that are selected.
    ///   - isGiven: `--yes`: nobody is asked.
    static func ask(
        _ action: String, _ count: Int, _ noun: String, note: String = "", preview: (TextStyle) -> String,
        isGiven: Bool,
        _ options: ClientOptions
    ) throws {
        StandardError.write("\(action): \(count) \(count == 1 ? noun : noun + "s")\(note)\n")
        if count == 0 { return }
        let terminal = options.terminal(STDERR_FILENO)
        StandardError.write(preview(terminal.style))
        if isGiven { return }
        guard terminal.isInteractive, isatty(STDIN_FILENO) == 1 else {
            throw UsageError("--yes: is needed, since there is no terminal to ask on; nothing was done")
        }
        StandardError.write("\(action) \(count == 1 ? "it" : "all of them")? [y/N] ")
        guard ["y", "yes"].contains((readLine() ?? "").lowercased()) else {
            StandardError.write("nothing was done\n")
            throw Exit(.interrupted)
        }
    }
}
