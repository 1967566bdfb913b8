// The words of memories that lie outside a Verilated model (hdl/verilog/lpu_mapped_bank.v), and who has which.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct Memory {
    Memory(std::string path, uint32_t parts, uint32_t depth);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    const std::string path;  // of the instance, from the top module on
    const uint32_t parts;    // 64-bit parts of a word
    const uint32_t depth;    // words
    uint64_t* const words;   // [depth][parts]; pages that were never touched take no memory

    size_t bytes() const { return sizeof(uint64_t) * parts * depth; }
};

using Memories = std::vector<std::unique_ptr<Memory>>;

// Where the memories of a model go that is being made in this thread; none: to the process (a model of cocotb's).
extern thread_local Memories* lpu_memories_of_new_model;
