/// What reflection has to know of a serialized `google.protobuf.FileDescriptorSet`: which file is where, and which
/// file defines a name. The files themselves are served as they are.
struct DescriptorIndex: Sendable {
    struct File: Sendable {
        var name = ""
        var package = ""
        var dependencies: [String] = []
        /// The serialized FileDescriptorProto.
        var bytes: [UInt8]
    }

    private(set) var files: [String: File] = [:]
    /// Full names of messages, enums, services, methods, fields, enum values and oneofs: the file's name.
    private(set) var symbols: [String: String] = [:]

    /// Nesting of messages that is followed; what is deeper is not indexed.
    private static let maximumDepth = 32

    /// Reads what can be read: bytes that are no descriptor set give an index with less in it.
    init(descriptorSet: [UInt8]) {
        var reader = ProtoReader(descriptorSet)
        while let (field, value) = reader.next() {
            if field == 1, case .bytes(let bytes) = value { self.add(bytes) }
        }
    }

    /// The file and what it depends on, directly or not, without `sent` and each once, dependencies last.
    func closure(of name: String, without sent: Set<String>) -> [File] {
        var queue = [name]
        var seen = sent.union([name])
        var result: [File] = []
        while let next = queue.first {
            queue.removeFirst()
            guard let file = self.files[next] else { continue }
            if !sent.contains(next) { result.append(file) }
            for dependency in file.dependencies where seen.insert(dependency).inserted { queue.append(dependency) }
        }
        return result
    }

    // Field numbers are those of google/protobuf/descriptor.proto.

    private mutating func add(_ bytes: ArraySlice<UInt8>) {
        var file = File(bytes: Array(bytes))
        var declarations: [(field: UInt32, bytes: ArraySlice<UInt8>)] = []
        var reader = ProtoReader(bytes)
        while let (field, value) = reader.next() {
            guard case .bytes(let bytes) = value else { continue }
            switch field {
            case 1: file.name = Self.text(bytes)
            case 2: file.package = Self.text(bytes)
            case 3: file.dependencies.append(Self.text(bytes))
            default: declarations.append((field, bytes))
            }
        }
        guard !file.name.isEmpty else { return }
        self.files[file.name] = file
        for (field, bytes) in declarations {
            switch field {
            case 4: self.addMessage(bytes, in: file.package, of: file.name, depth: 0)
            case 5: self.addEnum(bytes, in: file.package, of: file.name)
            case 6: self.addService(bytes, in: file.package, of: file.name)
            case 7: self.addNamed(bytes, in: file.package, of: file.name)
            default: break
            }
        }
    }

    private mutating func addMessage(_ bytes: ArraySlice<UInt8>, in scope: String, of file: String, depth: Int) {
        guard depth < Self.maximumDepth else { return }
        let name = Self.join(scope, Self.name(bytes))
        self.symbols[name] = file
        var reader = ProtoReader(bytes)
        while let (field, value) = reader.next() {
            guard case .bytes(let bytes) = value else { continue }
            switch field {
            case 2, 6, 8: self.addNamed(bytes, in: name, of: file)  // field, extension, oneof_decl
            case 3: self.addMessage(bytes, in: name, of: file, depth: depth + 1)
            case 4: self.addEnum(bytes, in: name, of: file)
            default: break
            }
        }
    }

    private mutating func addEnum(_ bytes: ArraySlice<UInt8>, in scope: String, of file: String) {
        self.symbols[Self.join(scope, Self.name(bytes))] = file
        var reader = ProtoReader(bytes)
        while let (field, value) = reader.next() {
            // A value's name belongs to the scope around its enum.
            if field == 2, case .bytes(let bytes) = value { self.addNamed(bytes, in: scope, of: file) }
        }
    }

    private mutating func addService(_ bytes: ArraySlice<UInt8>, in scope: String, of file: String) {
        let name = Self.join(scope, Self.name(bytes))
        self.symbols[name] = file
        var reader = ProtoReader(bytes)
        while let (field, value) = reader.next() {
            if field == 2, case .bytes(let bytes) = value { self.addNamed(bytes, in: name, of: file) }
        }
    }

    private mutating func addNamed(_ bytes: ArraySlice<UInt8>, in scope: String, of file: String) {
        self.symbols[Self.join(scope, Self.name(bytes))] = file
    }

    /// The `name`, field 1 of every descriptor.
    private static func name(_ bytes: ArraySlice<UInt8>) -> String {
        var reader = ProtoReader(bytes)
        while let (field, value) = reader.next() {
            if field == 1, case .bytes(let bytes) = value { return Self.text(bytes) }
        }
        return ""
    }

    private static func text(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes, as: UTF8.self) }

    private static func join(_ scope: String, _ name: String) -> String { scope.isEmpty ? name : "\(scope).\(name)" }
}
