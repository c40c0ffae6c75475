// Linked into the libraries of wheels, beside attend.cpp and the static libstdc++: what its containers throw. The
// library's own versions bring its locales along, which ask for a glibc that most systems do not have yet.

#include <new>

namespace std {
void __throw_length_error(const char*) { throw std::bad_alloc(); }
void __throw_bad_array_new_length() { throw std::bad_alloc(); }
} // namespace std
