package strategies

import (
	"embed"
	"sync"
)

// Recipes are whole models: strategy files with the model's shape. DeepSeek-V3's is deepseekv3.go.
//
//go:embed recipes/*.yaml
var recipeFiles embed.FS

// recipeNames lists the recipes in the order of their models' years.
var recipeNames = []string{"gshard", "switch", "mixtral", "deepseek-moe", "deepseek-v2", "skywork", "olmoe", "qwen3", "pangu-pro", "longcat",
	"trinity", "kimi-k3"}

func recipeFile(name string) string { return "recipes/" + name + ".yaml" }

// recipes reads them once. That all are right is tested.
var recipes = sync.OnceValue(func() (list []*Preset) {
	for _, name := range recipeNames {
		file := recipeFile(name)
		text, err := recipeFiles.ReadFile(file)
		if err != nil {
			panic(err)
		}
		p, err := Define(file, text)
		if err != nil {
			panic(err)
		}
		p.Family, p.file, p.source = "systems", "", nil
		list = append(list, p)
	}
	return list
})
