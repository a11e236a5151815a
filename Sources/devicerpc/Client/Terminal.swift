import Glibc

/// What the standard streams are connected to.
struct Terminal: Sendable {
    /// Whether somebody watches: live updates make sense.
    let isInteractive: Bool
    let style: TextStyle

    /// - Parameter environment: `NO_COLOR` (any value that is not empty, no-color.org) and `TERM=dumb` turn colours off.
    init(descriptor: Int32, environment: [String: String]) {
        let isTerminal = isatty(descriptor) == 1 && environment["TERM"] != "dumb"
        self.isInteractive = isTerminal
        self.style = TextStyle(isColored: isTerminal && (environment["NO_COLOR"] ?? "").isEmpty)
    }

    init(isInteractive: Bool, isColored: Bool) {
        self.isInteractive = isInteractive
        self.style = TextStyle(isColored: isColored)
    }

    /// Columns of the terminal on standard output or error; 80 where nobody knows.
    static func width() -> Int {
        var size = winsize()
        for descriptor in [STDOUT_FILENO, STDERR_FILENO]
        where ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 {
            return Int(size.ws_col)
        }
        return 80
    }
}

/// Colours, or none.
struct TextStyle: Sendable {
    let isColored: Bool

    func green(_ text: String) -> String { self.wrap(text, "32") }
    func red(_ text: String) -> String { self.wrap(text, "31") }
    func yellow(_ text: String) -> String { self.wrap(text, "33") }
    func dim(_ text: String) -> String { self.wrap(text, "2") }
    func bold(_ text: String) -> String { self.wrap(text, "1") }

    private func wrap(_ text: String, _ code: String) -> String {
        self.isColored ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text
    }
}

/// Text from a server, made safe for a terminal: control characters can't move the cursor or forge lines, and those of
/// Unicode's bidirectional algorithm can't have it read otherwise than it is.
enum Printable {
    static func text(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            let isControl =
                scalar.value < 32 || (127..<160).contains(scalar.value) || scalar.properties.isBidiControl
            result.append(isControl ? "\u{fffd}" : scalar)
        }
        return String(result)
    }
}
