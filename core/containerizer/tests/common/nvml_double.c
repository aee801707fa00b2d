/* In the place of the hardware: what the tests need of NVML, for a machine with two GPUs whose nodes are nvidia0 and nvidia1. */
#include <stdio.h>

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int error) { return error ? "failed" : "done"; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "550.1");
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 1)
        return 2;
    *device = (void *)(long)(index + 1);
    return 0;
}

int nvmlDeviceGetMinorNumber(void *device, unsigned *minor) {
    *minor = (unsigned)(long)device - 1;
    return 0;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    snprintf(text, length, "GPU-%ld", (long)device);
    return 0;
}
