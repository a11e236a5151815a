extension String {
    /// Whether all its bytes pass: asked before text is looked at character by character, since nearly all that is logged
    /// is plain and can be taken over whole.
    func allBytes(_ isPlain: (UInt8) -> Bool) -> Bool {
        self.utf8.withContiguousStorageIfAvailable { $0.allSatisfy(isPlain) } ?? self.utf8.allSatisfy(isPlain)
    }
}
