import Foundation
import Fuzzing

/// The inputs that are kept in Tests/Fuzzing/corpus.
enum Corpus {
    static func inputs(of target: FuzzTarget) throws -> [(name: String, bytes: [UInt8])] {
        let folder = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../Fuzzing/corpus/\(target.rawValue)").standardized
        return try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .sorted { $0.lastPathComponent < $1.lastPathComponent }
            .map { ($0.lastPathComponent, Array(try Data(contentsOf: $0))) }
    }

    /// A command for the shell that adds the input, for `keptInputs` to run again.
    static func keeping(_ input: [UInt8], of target: FuzzTarget) -> String {
        "base64 -d <<<\(Data(input).base64EncodedString()) >Tests/Fuzzing/corpus/\(target.rawValue)/found"
    }
}
