accelerate launch impruver run finetune --config ./13B_lora_saiga2.yaml --report-to=wandb
