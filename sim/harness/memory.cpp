// Makes the memories of memory.h, and reads and writes their words for a model (DPI).
#include "memory.h"

#include <sys/mman.h>

#include <stdexcept>
#include <utility>

thread_local Memories* lpu_memories_of_new_model = nullptr;

namespace {

uint64_t* map(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("no room for a simulated memory of " + std::to_string(bytes) + " bytes");
    return static_cast<uint64_t*>(at);
}

Memories& process_memories() {
    static Memories memories;
    return memories;
}

}  // namespace

Memory::Memory(std::string path_, uint32_t parts_, uint32_t depth_)
    : path(std::move(path_)), parts(parts_), depth(depth_), words(map(sizeof(uint64_t) * parts_ * depth_)) {}

Memory::~Memory() { munmap(words, bytes()); }

extern "C" void* lpu_memory_open(const char* path, unsigned parts, unsigned depth) {
    Memories& owner = lpu_memories_of_new_model ? *lpu_memories_of_new_model : process_memories();
    owner.push_back(std::make_unique<Memory>(path, parts, depth));
    return owner.back().get();
}

// Beyond the last word there is nothing: zeros, as of an array in Verilator.
extern "C" unsigned long long lpu_memory_get(void* handle, unsigned address, unsigned part) {
    const Memory& memory = *static_cast<const Memory*>(handle);
    return address < memory.depth ? memory.words[size_t{memory.parts} * address + part] : 0;
}

extern "C" void lpu_memory_put(void* handle, unsigned address, unsigned part, unsigned long long value,
                               unsigned long long mask) {
    const Memory& memory = *static_cast<const Memory*>(handle);
    if (address >= memory.depth) return;
    uint64_t& word = memory.words[size_t{memory.parts} * address + part];
    word = (word & ~mask) | (value & mask);
}
