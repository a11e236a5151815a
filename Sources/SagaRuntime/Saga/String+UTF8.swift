extension String {
    /// `bytes`, if they are UTF-8.
    ///
    /// As `String(validating:as:)`, which looks three generic types up each time: rows and events have dozens of texts.
    init?(utf8 bytes: UnsafeRawBufferPointer) {
        self.init(decoding: bytes, as: UTF8.self)
        // What is not UTF-8 was replaced, by other bytes.
        guard self.withUTF8({ $0.elementsEqual(bytes) }) else { return nil }
    }
}
