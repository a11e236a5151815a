import Glibc

/// Compares header bytes with a constant. Header names arrive in lower case (RFC 9113, section 8.2).
@inline(__always)
func equal(_ bytes: UnsafeBufferPointer<UInt8>, _ constant: StaticString) -> Bool {
    guard bytes.count == constant.utf8CodeUnitCount else { return false }
    guard let base = bytes.baseAddress else { return true }
    return memcmp(base, constant.utf8Start, bytes.count) == 0
}

/// True if the bytes begin with the constant.
@inline(__always)
func hasPrefix(_ bytes: UnsafeBufferPointer<UInt8>, _ constant: StaticString) -> Bool {
    guard bytes.count >= constant.utf8CodeUnitCount else { return false }
    return equal(UnsafeBufferPointer(rebasing: bytes[..<constant.utf8CodeUnitCount]), constant)
}

/// True if the bytes end with the constant.
@inline(__always)
func hasSuffix(_ bytes: UnsafeBufferPointer<UInt8>, _ constant: StaticString) -> Bool {
    let length = constant.utf8CodeUnitCount
    guard bytes.count >= length else { return false }
    return equal(UnsafeBufferPointer(rebasing: bytes[(bytes.count - length)...]), constant)
}

/// A string from bytes that may be anything: invalid UTF-8 becomes U+FFFD.
@inline(__always)
func lossyString(_ bytes: UnsafeBufferPointer<UInt8>) -> String {
    String(decoding: bytes, as: UTF8.self)
}
