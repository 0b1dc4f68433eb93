// A training step in ExecuTorch's C++ runtime, behind four functions that any language can call.
//
// The arena, and nothing else, is taken from the heap; inputs and results lie where the caller has them.

#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

using executorch::extension::TensorPtr;
using executorch::extension::from_blob;
using executorch::extension::module::Module;
using executorch::runtime::EValue;
using executorch::runtime::Error;
using executorch::runtime::TensorInfo;

namespace {

constexpr char kMethod[] = "forward";

struct Step {
  explicit Step(const char* path) : module(path) {}

  Module module;
  std::vector<TensorPtr> inputs, outputs;  // forms; their data pointers change at each run
  size_t arena = 0;
};

std::vector<executorch::aten::SizesType> sizes_of(const TensorInfo& info) {
  return {info.sizes().begin(), info.sizes().end()};
}

TensorPtr place_for(const TensorInfo& info) { return from_blob(nullptr, sizes_of(info), info.scalar_type()); }

Error prepare(Step& step) {
  auto loaded = step.module.load_method(kMethod);
  if (loaded != Error::Ok) return loaded;
  auto meta = step.module.method_meta(kMethod);
  if (!meta.ok()) return meta.error();
  for (size_t i = 0; i < meta->num_inputs(); ++i) step.inputs.push_back(place_for(*meta->input_tensor_meta(i)));
  for (size_t i = 0; i < meta->num_outputs(); ++i) step.outputs.push_back(place_for(*meta->output_tensor_meta(i)));
  for (size_t i = 0; i < meta->num_memory_planned_buffers(); ++i) step.arena += *meta->memory_planned_buffer_size(i);
  return Error::Ok;
}

Error give(Step& step, const std::vector<TensorPtr>& forms, void** data, bool input) {
  for (size_t i = 0; i < forms.size(); ++i) {
    forms[i]->unsafeGetTensorImpl()->set_data(data[i]);
    auto bound = input ? step.module.set_input(kMethod, EValue(*forms[i]), i)
                       : step.module.set_output(kMethod, EValue(*forms[i]), i);
    if (bound != Error::Ok) return bound;
  }
  return Error::Ok;
}

}  // namespace

extern "C" {

// Loads a program; the error's number is written where it fails, and nothing is returned.
void* step_open(const char* path, int* error) {
  auto* step = new Step(path);
  auto made = prepare(*step);
  *error = static_cast<int>(made);
  if (made == Error::Ok) return step;
  delete step;
  return nullptr;
}

// Bytes that the plan of memory holds between the first operator and the last.
size_t step_arena(void* step) { return static_cast<Step*>(step)->arena; }

// Runs once: a pointer to each input, and one to the room for each result. Returns 0, or the error's number.
int step_run(void* handle, void** inputs, void** outputs) {
  auto& step = *static_cast<Step*>(handle);
  auto bound = give(step, step.inputs, inputs, true);
  if (bound == Error::Ok) bound = give(step, step.outputs, outputs, false);
  if (bound != Error::Ok) return static_cast<int>(bound);
  auto made = step.module.execute(kMethod);
  return static_cast<int>(made.error());
}

void step_close(void* step) { delete static_cast<Step*>(step); }
}
