// Writes a trace by hand, without a library: c++ -std=c++17 write_trace.cpp && ./a.out run.jsonl && specscope check run.jsonl
// One greedy turn of two steps: chains of up to two drafts. An engine puts its own numbers in place of these.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

using Tokens = std::vector<int>;

class Trace {
 public:
  explicit Trace(const char* path) : file_(std::fopen(path, "wbx")) {  // x: an existing trace is kept
    if (file_ == nullptr) { std::perror(path); std::exit(2); }
  }
  // fields: what stands in the record beside seq and kind, as JSON without its braces.
  void write(const std::string& kind, const std::string& fields) {
    std::fprintf(file_, "{\"seq\": %d, \"kind\": \"%s\", %s}\n", seq_++, kind.c_str(), fields.c_str());
    std::fflush(file_);  // a killed run loses the line being written at most
    ++counts_[kind];
  }
  void finish() {
    std::string counts;
    for (const auto& [kind, count] : counts_)
      counts += (counts.empty() ? "\"" : ", \"") + kind + "\": " + std::to_string(count);
    write("run_end", "\"reason\": \"complete\", \"counts\": {" + counts + "}");  // digest may be left out
    std::fclose(file_);
  }

 private:
  std::FILE* file_;
  int seq_ = 0;
  std::map<std::string, int> counts_;
};

std::string list(const Tokens& values) {
  std::string text = "[";
  for (int value : values) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + "]";
}

struct Step {
  Tokens tokens, parents, argmax, path;  // per slot, the root first; path without the root
  int bonus;                             // the teacher's own token after the path
  const char* reason;                    // nullptr while the turn goes on
};

int main(int argc, char** argv) {
  Trace trace(argc > 1 ? argv[1] : "run.jsonl");
  trace.write("manifest",
      R"("schema": "specscope.trace/1.4", "run_id": "by-hand", "created": "2026-01-01T00:00:00+00:00",)"
      R"( "engine": "by hand 1", "versions": {}, "mode": "fused", "attention": "other", "dtype": "float32",)"
      R"( "device": {"backend": "cpu", "name": "any"}, "level": "decisions",)"
      R"( "teacher": {"name": "toy", "architecture": "Toy", "vocab_size": 32}, "drafter": {"kind": "ngram"},)"
      R"( "tree_policy": {"kind": "chain", "depth": 2, "top_k": 1, "budget": 2}, "sampling": {"rule": "greedy"},)"
      R"( "capabilities": ["tree", "verify", "accept", "stop"])");
  const Tokens prompt = {1, 5, 9};
  const int pending = 7;
  trace.write("turn_start", "\"turn\": 0, \"prompt_id\": \"p0\", \"prompt_turn\": 0, \"prompt_ids\": " + list(prompt) +
      ", \"reused_length\": 0, \"prefill\": {\"num_tokens\": " + std::to_string(prompt.size()) +
      ", \"pending_token\": " + std::to_string(pending) + "}");
  const std::vector<Step> steps = {{{7, 4, 8}, {0, 0, 1}, {4, 8, 2}, {1, 2}, 2, nullptr}, {{2, 6}, {0, 0}, {3, 0}, {}, 3, "length"}};
  Tokens output = {pending}, by_depth;
  int number = 0, drafted = 0, accepted = 0;
  for (const Step& step : steps) {
    Tokens depths = {0}, emitted;
    for (size_t slot = 1; slot < step.tokens.size(); ++slot) depths.push_back(depths[step.parents[slot]] + 1);
    for (int slot : step.path) emitted.push_back(step.tokens[slot]);
    emitted.push_back(step.bonus);
    const int length = static_cast<int>(step.path.size());
    by_depth.resize(std::max(by_depth.size(), step.path.size()));
    for (int depth = 0; depth < length; ++depth) ++by_depth[depth];
    trace.write("step", "\"turn\": 0, \"step\": " + std::to_string(number++) + ", \"tree\": {\"tokens\": " +
        list(step.tokens) + ", \"parents\": " + list(step.parents) + ", \"depths\": " + list(depths) +
        "}, \"verify\": {\"argmax\": " + list(step.argmax) + "}, \"accept\": {\"rule\": \"greedy\", \"path\": " +
        list(step.path) + ", \"accepted_length\": " + std::to_string(length) + ", \"bonus_token\": " +
        std::to_string(step.bonus) + ", \"bonus_slot\": " + std::to_string(length ? step.path.back() : 0) +
        "}, \"stop\": {\"emitted\": " + list(emitted) + ", \"kept\": " + std::to_string(emitted.size()) +
        (step.reason ? ", \"reason\": \"" + std::string(step.reason) + "\"}" : "}"));
    output.insert(output.end(), emitted.begin(), emitted.end());
    drafted += static_cast<int>(step.tokens.size()) - 1;
    accepted += length;
  }
  trace.write("turn_end", "\"turn\": 0, \"output_ids\": " + list(output) + ", \"reason\": \"length\", \"num_steps\": " +
      std::to_string(number) + ", \"num_drafted\": " + std::to_string(drafted) + ", \"num_accepted\": " +
      std::to_string(accepted) + ", \"accepted_by_depth\": " + list(by_depth) + ", \"duration_ns\": 81000000");
  trace.finish();
}
