# Every op, once. An op `foo` lives in csrc/ops/foo/ and brings
#   foo_check.cpp, foo_cpu.cpp    argument checks and the CPU version
#   foo_cuda.cu                   the CUDA version; without nvcc core/no_cuda.cpp takes its place
#   foo_binding.cpp               void restorert::foo::bind(pybind11::module_&)
#   foo_plugin.cpp                nvinfer1::IPluginCreatorInterface* restorert::foo::plugin_creator();
#                                 may be missing where TensorRT needs no plugin
# Bindings and plugin registry are generated from this list.
set(RESTORERT_OPS half_instance_norm channel_attention conv_lstm_gates memory_read
    layer_norm_2d simple_gate_mean)
