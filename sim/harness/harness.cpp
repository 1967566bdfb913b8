// Drives a Verilated top through its two byte streams, or (LPU_SERIAL) through the two wires of a UART, behind a
// small C interface for ctypes.
//
// One call runs many cycles: a simulated cycle costs two evaluations of the model and nothing else, with no
// Python and no VPI in the loop. ports.h, written beside the model by sim/verilator.py, lists the other ports.
//
// A cycle is one rising edge of clk with rst low, counted from 0. Cycle c lies at 10 c .. 10 c + 10 ns of a
// waveform: clk is low first, with that cycle's inputs applied, and rises at 10 c + 5.

#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "Vlpu.h"
#include "memory.h"
#include "ports.h"
#include "verilated.h"

#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Trace = VerilatedFstC;
#elif VM_TRACE
#include "verilated_vcd_c.h"
using Trace = VerilatedVcdC;
#endif

#define LPU_API extern "C" __attribute__((visibility("default")))

// Verilator ends the process on a fatal error of the model; a library must not, so these throw (built with
// -DVL_USER_FATAL and -DVL_USER_STOP) and the interface below turns that into an error message.
void vl_fatal(const char* file, int line, const char*, const char* message) {
    throw std::runtime_error(std::string(file ? file : "?") + ":" + std::to_string(line) + ": " + message);
}
void vl_stop(const char* file, int line, const char* scope) { vl_fatal(file, line, scope, "$stop"); }

namespace {

constexpr uint64_t kHalfPeriod = 5;  // in the waveform's unit, 1 ns

#ifdef LPU_SERIAL
// A bit's length in clocks, as a fraction: `step` is added to a phase every clock, and `period` is a bit.
struct BitTime {
    uint64_t period = 8;
    uint64_t step = 2;
};

// Bytes to levels: a start bit, eight bits from the lowest on, a stop bit; no pause between bytes that wait.
struct Sender {
    uint64_t phase = 0;
    unsigned frame = 0;
    int left = 0;  // bits to come, that on the line included

    bool level(const BitTime& time, std::deque<uint8_t>& bytes) {
        if (left == 0) {
            if (bytes.empty()) {
                phase = 0;
                return true;
            }
            frame = bytes.front() << 1 | 0x200u;
            left = 10;
            bytes.pop_front();
        }
        const bool out = frame & 1;
        phase += time.step;
        if (phase >= time.period) {
            phase -= time.period;
            frame >>= 1;
            --left;
        }
        return out;
    }
};

// Levels to bytes, each bit looked at in its middle.
struct Receiver {
    uint64_t phase = 0;
    unsigned bits = 0;
    int left = 0;        // bits to come, of ten
    bool strict = true;  // a byte without its start or stop bit is an error; else it is dropped

    bool take(const BitTime& time, bool level, uint8_t& byte) {
        if (left == 0) {
            if (level) return false;
            left = 10;
            phase = time.period / 2 + time.step;  // one clock of the start bit is over at the next look
            return false;
        }
        phase += time.step;
        if (phase < time.period) return false;
        phase -= time.period;
        bits = bits >> 1 | (level ? 0x200u : 0);
        if (--left) return false;
        if (!(bits & 0x200u) || (bits & 1)) {
            if (strict) throw std::runtime_error("tx: a byte without its start or stop bit");
            return false;
        }
        byte = static_cast<uint8_t>(bits >> 1);
        return true;
    }
};
#endif

// While it exists, the memories of a model that is made in this thread go to `owner`.
struct OwnerOfMemories {
    explicit OwnerOfMemories(Memories& owner) { lpu_memories_of_new_model = &owner; }
    ~OwnerOfMemories() { lpu_memories_of_new_model = nullptr; }
};

struct Sim {
    VerilatedContext context;
    Memories memories;  // outlives the model, which has pointers to them
    std::unique_ptr<Vlpu> top;
    std::deque<uint8_t> rx;        // bytes that wait to enter the core
    std::vector<uint8_t> tx;       // bytes that left it and wait to be popped
    std::vector<uint64_t> stamps;  // the cycle in which each of them left
    uint64_t cycles = 0;
    bool tx_ready = true;
#ifdef LPU_SERIAL
    BitTime bit_time;
    Sender sender;
    Receiver receiver;
#endif
    std::string error;
#if VM_TRACE
    std::unique_ptr<Trace> trace;
    std::string trace_path;
    uint64_t trace_from = 0;
    uint64_t trace_to = 0;
#endif

    Sim(int argc, const char* const* argv) {
        context.commandArgs(argc, const_cast<const char**>(argv));
#if VM_TRACE
        context.traceEverOn(true);
#endif
        // No name of its own: paths in the design begin with the top module, as in any other simulator.
        top.reset(new Vlpu(&context, ""));
        top->clk = 0;
        top->rst = 0;
        idle();
        const OwnerOfMemories owner(memories);  // the first evaluation runs the initial blocks
        top->eval();
    }

    ~Sim() {
#if VM_TRACE
        if (trace) trace->close();
#endif
        if (top) top->final();
    }

    // Nothing is offered to the core.
    void idle() {
#ifdef LPU_SERIAL
        top->rx = 1;
#else
        top->LPU_RX_VALID = 0;
        top->LPU_RX_PAYLOAD = 0;
        top->LPU_TX_READY = 1;
#endif
    }

    void reset(uint64_t count) {
        top->rst = 1;
        idle();
#ifdef LPU_SERIAL
        sender = Sender();
        receiver.left = 0;
#endif
        for (uint64_t i = 0; i < count; ++i) {
            top->clk = 0;
            top->eval();
            top->clk = 1;
            top->eval();
        }
        top->clk = 0;
        top->rst = 0;
        top->eval();
    }

#if VM_TRACE
    void dump(uint64_t offset) {
        if (cycles < trace_from || cycles > trace_to || trace_path.empty()) return;
        if (!trace) {
            trace.reset(new Trace);
            top->trace(trace.get(), 99);
            trace->open(trace_path.c_str());
            if (!trace->isOpen()) throw std::runtime_error("cannot write " + trace_path);
        }
        trace->dump(static_cast<uint64_t>(cycles * 2 * kHalfPeriod + offset));
    }

    void end_trace() {
        if (trace && cycles > trace_to) {
            trace->close();
            trace.reset();
            trace_path.clear();
        }
    }
#endif

    // The low half of a cycle: inputs are applied, and what the core offers is taken.
    void low() {
        top->clk = 0;
#ifdef LPU_SERIAL
        top->rx = sender.level(bit_time, rx);
        top->eval();
        uint8_t byte;
        if (receiver.take(bit_time, top->tx, byte)) {
            tx.push_back(byte);
            stamps.push_back(cycles);
        }
#else
        const bool offer = !rx.empty();
        top->LPU_RX_VALID = offer;
        top->LPU_RX_PAYLOAD = offer ? rx.front() : 0;
        top->LPU_TX_READY = tx_ready;
        top->eval();
        if (offer && top->LPU_RX_READY) rx.pop_front();
        if (tx_ready && top->LPU_TX_VALID) {
            tx.push_back(top->LPU_TX_PAYLOAD);
            stamps.push_back(cycles);
        }
#endif
    }

    void cycle() {
        low();
#if VM_TRACE
        dump(0);
#endif
        top->clk = 1;
        top->eval();
#if VM_TRACE
        dump(kHalfPeriod);
#endif
        ++cycles;
#if VM_TRACE
        end_trace();
#endif
    }
};

// Index of a port in ports.h to its value, and back.
uint64_t read_port(const Sim& sim, int port) {
    switch (port) {
#define LPU_CASE(index, name) \
    case index: return static_cast<uint64_t>(sim.top->name);
        LPU_OUTPUTS(LPU_CASE)
        LPU_INPUTS(LPU_CASE)
#undef LPU_CASE
        default: throw std::out_of_range("no such port");
    }
}

void write_port(Sim& sim, int port, uint64_t value) {
    switch (port) {
#define LPU_CASE(index, name) \
    case index: sim.top->name = value; break;
        LPU_INPUTS(LPU_CASE)
#undef LPU_CASE
        default: throw std::out_of_range("no such input");
    }
    (void)value;
    sim.top->eval();
}

template <typename F>
int guarded(Sim* sim, F body) {
    try {
        body();
        return 0;
    } catch (const std::exception& e) {
        sim->error = e.what();
        return -1;
    }
}

std::string create_error;

}  // namespace

LPU_API Sim* lpu_create(int argc, const char* const* argv) {
    try {
        return new Sim(argc, argv);
    } catch (const std::exception& e) {
        create_error = e.what();
        return nullptr;
    }
}

LPU_API void lpu_destroy(Sim* sim) { delete sim; }

LPU_API const char* lpu_error(Sim* sim) { return sim ? sim->error.c_str() : create_error.c_str(); }

LPU_API int lpu_reset(Sim* sim, uint64_t cycles) {
    return guarded(sim, [&] { sim->reset(cycles); });
}

LPU_API void lpu_push_rx(Sim* sim, const uint8_t* data, size_t size) {
    sim->rx.insert(sim->rx.end(), data, data + size);
}

LPU_API size_t lpu_rx_pending(Sim* sim) { return sim->rx.size(); }

LPU_API size_t lpu_tx_pending(Sim* sim) { return sim->tx.size(); }

LPU_API uint64_t lpu_cycles(Sim* sim) { return sim->cycles; }

#ifdef LPU_SERIAL
// A bit lasts clocks / bits clocks, on both wires.
LPU_API void lpu_set_bit_time(Sim* sim, uint64_t clocks, uint64_t bits) { sim->bit_time = {2 * clocks, 2 * bits}; }

LPU_API void lpu_set_strict(Sim* sim, int strict) { sim->receiver.strict = strict != 0; }
#endif

LPU_API void lpu_set_tx_ready(Sim* sim, int ready) { sim->tx_ready = ready != 0; }

// Runs up to max_cycles cycles; ends early after the cycle in which stop_tx bytes wait to be popped (0: never)
// or port `until` (-1: none) reads `value`. `until` is looked at after each cycle's edge.
LPU_API int lpu_run(Sim* sim, uint64_t max_cycles, uint64_t stop_tx, int until, uint64_t value) {
    return guarded(sim, [&] {
        for (uint64_t i = 0; i < max_cycles; ++i) {
            sim->cycle();
            if (sim->context.gotFinish()) throw std::runtime_error("the design called $finish");
            if (stop_tx && sim->tx.size() >= stop_tx) break;
            if (until >= 0 && read_port(*sim, until) == value) break;
        }
    });
}

// Moves up to `max` bytes, oldest first, and the cycle each left in; returns how many.
LPU_API size_t lpu_pop_tx(Sim* sim, uint8_t* data, uint64_t* stamps, size_t max) {
    const size_t n = sim->tx.size() < max ? sim->tx.size() : max;
    if (n == 0) return 0;
    std::memcpy(data, sim->tx.data(), n);
    std::memcpy(stamps, sim->stamps.data(), n * sizeof(uint64_t));
    sim->tx.erase(sim->tx.begin(), sim->tx.begin() + n);
    sim->stamps.erase(sim->stamps.begin(), sim->stamps.begin() + n);
    return n;
}

// Memories that lie outside the model, numbered from 0; returns the words, or nullptr behind the last one.
LPU_API uint64_t* lpu_memory(Sim* sim, size_t index, const char** path, uint32_t* parts, uint32_t* depth) {
    if (index >= sim->memories.size()) return nullptr;
    const Memory& memory = *sim->memories[index];
    *path = memory.path.c_str();
    *parts = memory.parts;
    *depth = memory.depth;
    return memory.words;
}

LPU_API int lpu_get(Sim* sim, int port, uint64_t* value) {
    return guarded(sim, [&] { *value = read_port(*sim, port); });
}

LPU_API int lpu_set(Sim* sim, int port, uint64_t value) {
    return guarded(sim, [&] { write_port(*sim, port, value); });
}

// Records cycles from..to (both included) in `path`.
LPU_API int lpu_trace(Sim* sim, const char* path, uint64_t from, uint64_t to) {
    return guarded(sim, [&] {
#if VM_TRACE
        if (sim->trace) throw std::runtime_error("a waveform is being recorded already");
        sim->trace_path = path;
        sim->trace_from = from;
        sim->trace_to = to;
#else
        (void)path;
        (void)from;
        (void)to;
        throw std::runtime_error("this model was built without waveforms");
#endif
    });
}
